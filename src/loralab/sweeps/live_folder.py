"""<store>/live/<ID>/: what a sweep says of itself while it trains, for `loralab watch`. Only the sweep writes there.

sweep.json: its command, and its runs with their settings; written at each launch
now.json: the runs at work with their steps, and the time left; written about once a second
lock: locked while the sweep's process lives; its time is when the sweep began
"""

import contextlib
import json
import os
import shlex
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from omegaconf import DictConfig

from loralab import places
from loralab.entries import typed
from loralab.files import locked
from loralab.sweeps.live_runs import Running
from loralab.sweeps.scheduler import Job, Observer, Outcome
from loralab.sweeps.sweep_file import sweep_id

__all__ = ["FOLDER", "LOCK", "NOW", "SWEEP", "About", "LiveFolder", "Shown", "about_sweep"]

FOLDER, SWEEP, NOW, LOCK = "live", "sweep.json", "now.json", "lock"
# Settings of Hydra's that belong to the command, but for those that smoke=true and its like set in the sweeper.
_CHOICES = ("hydra/launcher=", "hydra.launcher.", "hydra/sweeper=")
# Least seconds between two writes of now.json where only steps have changed.
SAY_SECONDS = 1.0
# Folders of sweeps that have ended, beyond which the oldest are removed when another begins.
KEPT = 30
# Processes that may run the same sweep at once, each with a folder of its own.
MOST_AT_ONCE = 9


@dataclass(frozen=True)
class About:
    """What does not change in a sweep.

    id: of its folder; kind: sweep or tune, whose session is in <store>/tune/<id>; title: for a heading; command: as it
    is typed; figures: files that are drawn of it, of which the first that is there is shown.
    """

    id: str
    kind: str
    title: str
    command: str
    figures: Sequence[Path] = ()


def about_sweep(master: DictConfig, keys: Collection[str]) -> About:
    """Of a sweep that is no tuning session. master: the configuration that Hydra composed for it; keys: of its runs."""
    study = master.hydra.runtime.choices.get("sweeps")
    name = sweep_id(study or "sweep", keys)
    drawn = [Path(master.store) / "figures" / f"{name}.png"]
    plugins = [text for text in master.hydra.overrides.hydra if text.startswith(_CHOICES)]
    words = [text.replace("+sweeps=", "sweeps=") for text in (*plugins, *master.hydra.overrides.task)]
    return About(
        id=name,
        kind="sweep",
        title=f"study {study}" if study else "sweep",
        command=f"{typed('train')} {shlex.join(words if study else ['-m', *words])}",
        figures=[*drawn, places.HERE / "analysis" / "figures" / f"{study}.png"] if study else drawn,
    )


class Shown(Observer, Protocol):
    """The display of a sweep, as far as it is written down."""

    running: dict[int, Running]
    halted: str

    def outlook(self) -> str:
        """The time left, or what there is instead of it."""


class LiveFolder:
    """The folder of one sweep, for its whole process. A store that cannot be written to has none, and loses nothing."""

    def __init__(self, store: Path, about: About) -> None:
        self.about = about
        self.path: Path | None = None
        self.handle: int | None = None
        self.began = time.time()
        self.runs: dict[str, dict[str, Any]] = {}
        self.slots = 0
        self.display: Shown | None = None
        self.said = 0.0
        _remove_old(store / FOLDER)
        for number in range(1, MOST_AT_ONCE + 1):
            path = store / FOLDER / (about.id if number == 1 else f"{about.id}-{number}")
            with contextlib.suppress(OSError):  # it cannot be written to, or has no locks
                path.mkdir(parents=True, exist_ok=True)
                self.handle = _locked(path / LOCK)
            if self.handle is not None:
                self.path = path
                return

    def launched(
        self, runs: Mapping[str, Mapping[str, str]], *, to_train: Collection[str], slots: int, at: float
    ) -> None:
        """A launch begins.

        runs: key -> its settings as they are typed; to_train: those that were not done when the launch looked at the
        store, at the time `at`: what ended before is trained again.
        """
        for key, settings in runs.items():
            there = self.runs.pop(key, {"launched": None})  # a tuner's later launch has its runs last
            launched = at if key in to_train else there["launched"]
            self.runs[key] = {"run": key, "settings": dict(settings), "launched": launched}
        self.slots = slots
        self._write(
            SWEEP,
            {
                "id": self.about.id, "kind": self.about.kind, "title": self.about.title, "command": self.about.command,
                "figures": [str(path.absolute()) for path in self.about.figures],
                "began": self.began, "slots": slots, "runs": list(self.runs.values()),
            },
        )  # fmt: skip

    def follow(self, display: Shown) -> Observer:
        """The display, whose state is written down after each event."""
        self.display = display
        self.now()
        return _Followed(display, self)

    def now(self, *, state: str = "training") -> None:
        """Writes the state of the display."""
        if self.display is None:
            return
        self.said = time.monotonic()
        running = [
            {"run": run.job.key, "slot": slot, "step": run.step, "steps": run.steps}
            for slot, run in sorted(self.display.running.items())
        ]
        if state == "training" and self.display.halted:
            state = "stopping"
        self._write(NOW, {"at": time.time(), "state": state, "outlook": self.display.outlook(), "running": running})

    def sometimes(self) -> None:
        """The same, unless it was written a moment ago."""
        if time.monotonic() - self.said >= SAY_SECONDS:
            self.now()

    def close(self) -> None:
        """The process ends; one that is killed leaves its last state, without the lock."""
        if self.handle is not None:
            self.now(state="stopped" if self.display is not None and self.display.halted else "ended")
            os.close(self.handle)
            self.handle = None

    def _write(self, name: str, values: Mapping[str, Any]) -> None:
        """In one piece, and without fsync, which would take longer than all else: after a crash it is of no use."""
        if self.path is None or self.handle is None:
            return
        part = self.path / f".{name}.tmp"
        with contextlib.suppress(OSError):  # it was removed, or the disk is full
            part.write_text(json.dumps(values), encoding="utf-8")
            part.replace(self.path / name)


def _remove_old(folder: Path) -> None:
    """Removes the folders of the oldest sweeps; a sweep at work has its lock, and keeps its folder."""
    with contextlib.suppress(OSError):  # another process removes them too, or nobody may
        locks = sorted(folder.glob(f"*/{LOCK}"), key=lambda path: path.stat().st_mtime)
        for lock in locks[:-KEPT]:
            handle = _locked(lock, begin=False)
            if handle is not None:
                shutil.rmtree(lock.parent, ignore_errors=True)
                os.close(handle)


def _locked(file: Path, *, begin: bool = True) -> int | None:
    """The file, with its lock and, to begin a sweep, the present time; None where another process has it.

    Raises OSError.
    """
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        if begin:
            os.utime(handle)
        return locked(handle)
    except OSError:
        os.close(handle)
        raise


@dataclass(frozen=True)
class _Followed:
    """Passes events on to a display, and has its state written down."""

    display: Shown
    folder: LiveFolder

    def began(self, slot: int, job: Job) -> None:
        self.display.began(slot, job)
        self.folder.now()

    def message(self, slot: int, content: Any) -> None:
        self.display.message(slot, content)
        self.folder.now() if "steps" in content else self.folder.sometimes()

    def left(self, slot: int) -> None:
        self.display.left(slot)

    def ended(self, job: Job, outcome: Outcome) -> None:
        self.display.ended(job, outcome)
        self.folder.sometimes() if outcome.elsewhere else self.folder.now()

    def retried(self, job: Job, reason: str) -> None:
        self.display.retried(job, reason)
        self.folder.now()

    def stopping(self, running: int) -> None:
        self.display.stopping(running)
        self.folder.now()
