"""What `loralab runs` and `loralab show` print of a store: read from its files alone, without torch."""

import contextlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from loralab.runs.console import group_table, summary
from loralab.store.record import FailedRecord, PausedRecord, Record
from loralab.store.run_directory import RunDirectory, standing, status
from loralab.text import align, figure

__all__ = ["listing", "shown"]


@dataclass(frozen=True)
class _Line:
    """One run of the list, when it last changed (seconds since the epoch), and what is wrong with a damaged one."""

    cells: tuple[str, ...]
    when: float
    error: str | None = None


def listing(store: Path) -> list[str]:
    """One line per run, the latest last: status, primary metric on validation and test (last step), time."""
    lines = [_line(RunDirectory(path)) for path in (store / "runs").glob("*") if _is_run(path)]
    if not lines:
        return [f"no runs in {store / 'runs'}; `python train.py` makes one"]
    lines.sort(key=lambda line: line.when)
    header = ("run", "status", "metric", "validation", "test", "seconds", "when")
    return [*align([header, *(line.cells for line in lines)], text=3), *(line.error for line in lines if line.error)]


def _is_run(path: Path) -> bool:
    """Whether it has a config.yaml or a record.json, in whatever state."""
    try:
        return any((path / name).exists() for name in ("config.yaml", "record.json"))
    except OSError:  # it may not be read, which its line says
        return True


def shown(run: RunDirectory) -> list[str]:
    """Everything about a run, in lines: its command, scores, parameter groups and origin."""
    from loralab.config.command import command  # these take longer than the list of a store
    from loralab.config.stored import stored_config
    from loralab.runs.rates import rates_line

    record = run.record()
    config = stored_config(run.path / "config.yaml")
    lines = [run.path.name, command(config), ""]
    if record is None or record["status"] == "failed":
        lines += [status(run)] + ([] if record is None else record["error"].strip().splitlines())
    else:
        width = record["backbone"].get("width") if "backbone" in record else None
        rates = rates_line(config, width=width, steps=record["steps"])
        lines += [*summary(record), "", *filter(None, [rates]), *group_table(record["groups"])]
        lines += ["", f"{record['device']}, CPU threads: {record['threads']}"]
    if record is not None:
        lines += [_origin(record)]
    files = sorted(path for path in run.path.rglob("*") if path.is_file())
    sizes = [(str(path.relative_to(run.path)), f"{path.stat().st_size:,} bytes") for path in files]
    return [*lines, "", f"{run.path}/", *(f"  {line}" for line in align(sizes))]


def _line(run: RunDirectory) -> _Line:
    now = standing(run)
    record = now.record
    if record is None or record["status"] == "failed":
        moved = _moved(run.path)
        return _Line((run.path.name, status(run), "", "", "", "", _clock(moved)), moved, now.error)
    primary = record["metrics"]["primary"]
    tests = [split for split in record["metrics"] if split.startswith("test")]
    scores = [record["metrics"][split]["last"] for split in ("validation", *tests[:1])]
    shown = [figure(None if s is None else s[primary]) for s in scores] + ["-"] * (2 - len(scores))
    seconds = f"{record['timing']['seconds']:.1f}"
    return _Line((run.path.name, status(run), primary, *shown, seconds, _clock(record["ended"])), record["ended"])


def _moved(directory: Path) -> float:
    """When a file in the directory, or the directory, last changed."""
    times = [0.0]
    with contextlib.suppress(OSError):  # it may not be read, or is being removed
        times += [path.lstat().st_mtime for path in (directory, *directory.iterdir())]
    return max(times)


def _origin(record: Record | PausedRecord | FailedRecord) -> str:
    commit, diff = record["git"]["commit"], record["git"]["diff"]
    code = "no git checkout" if commit is None else f"commit {commit[:10]}" + (f" with diff {diff}" if diff else "")
    known = [name for name in ("python", "torch", "transformers") if name in record["versions"]]
    versions = ", ".join(f"{name} {record['versions'][name]}" for name in known)
    return f"{_clock(record['started'])} to {_clock(record['ended'])}; {code}; {versions}"


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
