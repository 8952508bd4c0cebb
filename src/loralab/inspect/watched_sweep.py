"""A sweep as `loralab watch` shows it: its runs with state, step, rate and scores. Writes nothing."""

import contextlib
import fcntl
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loralab.config.tuned_file import FILE
from loralab.errors import UserError
from loralab.files import read_regular
from loralab.inspect.watch_curves import CurveFile
from loralab.runs.rows import lower_is_better
from loralab.store.run_directory import RunDirectory, Standing, is_final, standing
from loralab.store.strict_json import parse
from loralab.sweeps.live_folder import FOLDER, LOCK, NOW, SWEEP
from loralab.sweeps.live_runs import last_line
from loralab.sweeps.sweep_file import LAST
from loralab.text import count, shown
from loralab.tuning.tuned import Tuned

__all__ = ["WatchedSweep", "listed", "newest"]

WORDS = {"success": "done", "missing": "not begun"}  # for a status, where the page has another word
ORDER = ("done", "diverged", "paused", "failed", "damaged", "cut off", "running", "waiting", "not begun")
OVER = ("done", "diverged", "paused", "failed", "damaged")
LONGEST_NOTE = 300


def listed(store: Path) -> list[str]:
    """The ids of the sweeps that can be watched: those at work first, then the latest first."""
    found = [path for path in (store / FOLDER).glob("*") if (path / SWEEP).is_file()]
    return [path.name for path in sorted(found, key=lambda path: (_is_alive(path), _began(path)), reverse=True)]


def newest(store: Path, wanted: str | None = None) -> str | None:
    """The sweep that is at work, else the latest one, also for `last`; else of those whose id begins with `wanted`.

    None where there is none at all. Raises UserError where none begins so.
    """
    ids = listed(store)
    if wanted is None or wanted == LAST:
        return ids[0] if ids else None
    fitting = [name for name in ids if name == wanted] or [name for name in ids if name.startswith(wanted)]
    if not fitting:
        there = f"there are {', '.join(ids[:8])}" if ids else "there is none yet: `loralab watch` waits for the first"
        raise UserError(f"{wanted!r} begins the id of no sweep in {store / FOLDER}; {there}")
    return fitting[0]


class WatchedSweep:
    """One sweep; what does not change is read once.

    `look` gives what the page shows, as JSON has it; `curves` has the curves of each run by its name.
    """

    def __init__(self, store: Path, name: str) -> None:
        self.store, self.name = store, name
        self.folder = store / FOLDER / name
        self.curves: dict[str, CurveFile] = {}
        self._stamp: tuple[int, int] = (0, 0)
        self._sweep: dict[str, Any] = {}
        self._ended: dict[str, dict[str, Any]] = {}  # runs that change no more
        self._columns: list[dict[str, str]] = []
        self._answered: tuple[float, list[str]] = (0.0, [])

    def look(self) -> dict[str, Any]:
        """The sweep now. Raises UserError where sweep.json is damaged or gone."""
        sweep, now, alive = self._read(), self._now(), _is_alive(self.folder)
        at_work = {run["run"]: run for run in now.get("running", ())} if alive else {}
        runs = [self._ended.get(run["run"]) or self._run(run, at_work, alive) for run in sweep["runs"]]
        counts = Counter(run["state"] for run in runs)
        state = _state(now.get("state"), alive)
        outlook = now.get("outlook", "") if alive or sweep["kind"] == "tune" else ""
        return {
            "id": self.name,
            "kind": sweep["kind"],
            "title": shown(sweep["title"]),
            "command": shown(sweep["command"], longest=None),
            "store": str(self.store),
            "began": sweep["began"],
            "state": state,
            "total": len(runs),
            "over": sum(counts[word] for word in OVER),
            "counts": {word: counts[word] for word in ORDER if counts[word]},
            "summary": _summary(sweep["kind"], counts, state, shown(outlook)),
            "answer": self._answer(sweep),
            "figure": self.figure(),
            "settings": self._columns,
            "metrics": _metrics(self.curves.values(), [run["primary"] for run in runs]),
            "runs": runs,
        }

    def figure(self) -> str | None:
        """The path of the sweep's figure, if it was drawn since the sweep began."""
        for text in self._sweep.get("figures", ()):
            with contextlib.suppress(OSError):
                if text.endswith(".png") and os.stat(text).st_mtime >= self._sweep["began"]:  # noqa: PTH116
                    return str(text)
        return None

    def _read(self) -> dict[str, Any]:
        path = self.folder / SWEEP
        try:
            there = path.stat()
            if (there.st_ino, there.st_mtime_ns) != self._stamp:
                self._sweep = _checked(parse(read_regular(path)))
                self._stamp = (there.st_ino, there.st_mtime_ns)
                self._ended, self._columns = {}, _columns(self._sweep["runs"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{path} cannot be read ({type(error).__name__}: {error})") from error
        return self._sweep

    def _now(self) -> dict[str, Any]:
        """now.json; nothing where there is none yet, or where it is damaged."""
        try:
            now = parse(read_regular(self.folder / NOW))
            whole = isinstance(now["state"], str) and isinstance(now["outlook"], str)
            whole &= all(type(run["step"]) is type(run["steps"]) is int for run in now["running"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return {}
        return dict(now) if whole else {}

    def _run(self, run: Mapping[str, Any], at_work: Mapping[str, Mapping[str, int]], alive: bool) -> dict[str, Any]:
        """One run. Where the sweep is to train it, a record that was there before says nothing."""
        name, launched = run["run"], run["launched"]
        directory = RunDirectory(self.store / "runs" / name)
        now = standing(directory)
        curve = self.curves.setdefault(name, CurveFile(directory.path))
        try:
            curve.read()
        except UserError as error:
            now = Standing("damaged", error=str(error))
        record = now.record
        is_old = record is not None and launched is not None and record["ended"] < launched
        state = WORDS.get(now.status, now.status)
        if name in at_work and (record is None or is_old) and state != "damaged":
            state = "running"
        elif alive and launched is not None and (is_old or state in ("not begun", "cut off")):
            state = "waiting"
        keys = [column["key"] for column in self._columns]
        running = at_work.get(name, {})
        step, steps = max(curve.step, running.get("step", 0), now.step), running.get("steps", 0)
        if record is not None and record["status"] != "failed" and state not in ("running", "waiting"):
            step, steps = record["steps"], record.get("total_steps", record["steps"])
        found = {
            "run": name,
            "hash": directory.hash,
            "state": state,
            "note": shown(_note(now), longest=LONGEST_NOTE) if state in ("failed", "damaged") else "",
            "step": step,
            "steps": steps,
            "rate": curve.rate if state == "running" else None,
            "settings": {key: shown(text) for key in keys if (text := run["settings"].get(key)) is not None},
            "scores": curve.last("validation"),
            "seconds": curve.seconds,
            "primary": record["metrics"]["primary"] if record is not None and record["status"] != "failed" else None,
        }
        if is_final(record) and state in ("done", "diverged"):
            self._ended[name] = found
        return found

    def _answer(self, sweep: Mapping[str, Any]) -> list[str]:
        """What a tuning session recommends, once it has ended."""
        file = self.store / "tune" / sweep["id"] / FILE
        with contextlib.suppress(OSError, UserError):
            written = file.stat().st_mtime if sweep["kind"] == "tune" else 0.0
            if written > max(sweep["began"], self._answered[0]):
                self._answered = (written, [shown(line, longest=None) for line in Tuned.read(file).lines()])
        return self._answered[1] if self._answered[0] > sweep["began"] else []


def _checked(sweep: Any) -> dict[str, Any]:
    """What sweep.json holds; raises ValueError, KeyError or TypeError where it is not what a sweep writes."""
    texts = (sweep["id"], sweep["kind"], sweep["title"], sweep["command"], *sweep["figures"])
    if not all(isinstance(text, str) for text in texts) or not isinstance(sweep["began"], float):
        raise ValueError("it is no sweep's")
    for run in sweep["runs"]:
        if not isinstance(run["launched"], float | None) or not isinstance(run["settings"], dict):
            raise ValueError("a run in it has no settings")
        for text in (run["run"], *run["settings"].values()):
            if not isinstance(text, str):
                raise ValueError("a setting in it is no text")
        if Path(run["run"]).name != run["run"] or Path(sweep["id"]).name != sweep["id"]:  # such as ../x
            raise ValueError("it names other folders")
    return dict(sweep)


def _summary(kind: str, counts: Mapping[str, int], state: str, outlook: str) -> str:
    """`3 of 12 done, 1 diverged, 2 running, 6 left, about 3 min left`."""
    total = sum(counts.values())
    parts = [f"{counts.get('done', 0)} of {total} done" if kind == "sweep" else count(total, "trial")]
    parts += [f"{counts[word]} {word}" for word in ORDER if counts.get(word) and (word != "done" or kind == "tune")]
    words = {
        "killed": "its process was killed: the same command goes on",
        "stopped": "it was stopped: the same command goes on",
        "ended": "it has ended",
    }
    return ", ".join(parts) + "".join(f"; {text}" for text in (outlook, words.get(state, "")) if text)


def _note(now: Standing) -> str:
    """What is wrong with a run that failed, or whose files are damaged."""
    if now.record is not None and now.record["status"] == "failed":
        return last_line(now.record["error"])
    return now.error or ""


def _columns(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The settings in which the runs differ, with titles: the last part of a key, if no other key ends in it."""
    every = dict.fromkeys(key for run in runs for key in run["settings"])
    keys = [key for key in every if len({run["settings"].get(key) for run in runs}) > 1]
    ends = Counter(key.rpartition(".")[2] for key in keys)
    return [{"key": key, "title": end if ends[end := key.rpartition(".")[2]] == 1 else key} for key in keys]


def _metrics(curves: Any, primary: Sequence[str | None]) -> list[dict[str, Any]]:
    """The validation metrics: the primary one first, where a run has said which that is, and the loss last."""
    names = dict.fromkeys(key for curve in curves for key in curve.last("validation"))
    first = [f"validation/{name}" for name in dict.fromkeys(primary) if name is not None]
    order = sorted(names, key=lambda key: (key not in first, key == "validation/loss"))
    return [{"key": key, "title": key.removeprefix("validation/"), "lower": lower_is_better(key)} for key in order]


def _state(said: str | None, alive: bool) -> str:
    """training, stopping, ended, stopped (by the user), or killed: the process is gone, and has not said why."""
    if alive:
        return "stopping" if said == "stopping" else "training"
    return said if said in ("ended", "stopped") else "killed"


def _is_alive(folder: Path) -> bool:
    """Whether the sweep's process lives: it has the lock."""
    with contextlib.suppress(OSError):
        handle = os.open(folder / LOCK, os.O_RDONLY | os.O_NONBLOCK)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
    return False


def _began(folder: Path) -> float:
    with contextlib.suppress(OSError):
        return (folder / LOCK).stat().st_mtime
    return 0.0
