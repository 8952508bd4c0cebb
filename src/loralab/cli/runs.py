"""What `loralab runs` and `loralab show` print of a store: read from its files alone, without torch."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from loralab.config.overrides import written
from loralab.errors import UserError
from loralab.runs.console import align, figure, group_table, summary
from loralab.store.run_directory import RunDirectory

__all__ = ["CONF", "command", "listing", "record_of", "settings", "shown", "status"]

CONF = Path(__file__).resolve().parents[3] / "conf"
"""The configs of this checkout: what `settings` tells the defaults by."""


@dataclass(frozen=True)
class _Line:
    """One run of the list, and when it last moved (seconds since the epoch)."""

    cells: tuple[str, ...]
    when: float


def listing(store: Path) -> list[str]:
    """One line a run of the store, the latest last: status, primary metric on validation and test (last step), time."""
    lines = [_line(RunDirectory(path)) for path in (store / "runs").glob("*") if (path / "config.yaml").is_file()]
    if not lines:
        return [f"no runs in {store / 'runs'}; `python train.py` makes one"]
    header = ("run", "status", "metric", "validation", "test", "seconds", "when")
    return align([header, *(line.cells for line in sorted(lines, key=lambda line: line.when))], text=3)


def shown(run: RunDirectory) -> list[str]:
    """All that is known of a run, in lines: how to make it again, its figures, its groups, and where it came from."""
    record = run.record()
    lines = [run.path.name, command(OmegaConf.load(run.path / "config.yaml")), ""]
    if record is None or record["status"] == "failed":
        lines += [status(run)] + ([] if record is None else record["error"].strip().splitlines())
    else:
        lines += [*summary(record), "", *group_table(record["groups"])]
        lines += ["", f"{record['device']}, CPU threads: {record['threads']}"]
    if record is not None:
        lines += [_origin(record)]
    files = sorted(path for path in run.path.rglob("*") if path.is_file())
    sizes = [(str(path.relative_to(run.path)), f"{path.stat().st_size:,} bytes") for path in files]
    return [*lines, "", f"{run.path}/", *(f"  {line}" for line in align(sizes))]


def status(run: RunDirectory) -> str:
    """success, diverged or failed as the record has it; running or cut off, with the step, where there is none."""
    record = run.finished()
    if record is not None:
        return str(record["status"])
    if run.held():
        return f"running, step {_last_step(run)}"
    return "failed" if run.record() is not None else f"cut off at step {_last_step(run)}"


def settings(config: Any) -> list[str]:
    """The overrides of `python train.py` that compose `config`, but for its store and tracker.

    What is `auto` in the defaults was resolved when the run began, so it is always among them.
    """
    values = {key: value for key, value in _leaves(config) if key != "store" and not key.startswith("tracker.")}
    if not CONF.is_dir():  # installed without its checkout
        return [f"{key}={written(value)}" for key, value in values.items()]
    groups = []
    for group, name in (("model", values["model.name"]), ("task", values["task.name"])):
        groups += [f"{group}={name}"] if (CONF / group / f"{name}.yaml").is_file() else []
    methods = [
        f"method={path.stem}"
        for path in sorted((CONF / "method").glob("*.yaml"))
        if OmegaConf.load(path).method.name == values["method.name"]
    ]
    every = [[*groups, method, *_differing(values, [*groups, method])] for method in methods]
    shortest = min(every, key=len)
    defaults = {"model=minilm", "task=rotten_tomatoes", "method=lora_plus"}
    return [override for override in shortest if override not in defaults]


def _differing(values: dict[str, Any], groups: list[str]) -> list[str]:
    """The overrides that lead from the defaults with these groups to `values`."""
    base = _composed(groups)
    sources = [key for key in ("seed", "model.default_lr") if base[key] != values[key]]  # others follow from these two
    found = [f"{key}={written(values[key])}" for key in sources]
    base = _composed([*groups, *found])
    return found + [f"{key}={written(value)}" for key, value in values.items() if base[key] != value]


def _composed(overrides: list[str]) -> dict[str, Any]:
    from hydra import compose, initialize_config_dir

    import loralab.cli.hydra_main  # registers the schema

    assert loralab.cli.hydra_main
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return dict(_leaves(compose("config", overrides)))


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and plain values, interpolations resolved; lists and the mapping rank_pattern are values."""
    for name in node:
        key = f"{prefix}{name}"
        value = node[name]
        if isinstance(value, DictConfig) and key != "lora.rank_pattern":
            yield from _leaves(value, f"{key}.")
        else:
            yield key, OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def command(config: Any) -> str:
    """The line for a shell that makes the run of `config` again."""
    return shlex.join(["python", "train.py", *settings(config)])


def _line(run: RunDirectory) -> _Line:
    try:
        record, state = run.finished(), status(run)
    except UserError:  # one damaged record must not hide the other runs; `loralab show` says what is wrong with it
        record, state = None, "damaged"
    if record is None:
        moved = max(path.stat().st_mtime for path in run.path.iterdir())
        return _Line((run.path.name, state, "", "", "", "", _clock(moved)), moved)
    primary = record["metrics"]["primary"]
    tests = [split for split in record["metrics"] if split.startswith("test")]
    scores = [record["metrics"][split]["last"] for split in ("validation", *tests[:1])]
    shown = [figure(None if s is None else s[primary]) for s in scores] + ["-"] * (2 - len(scores))
    seconds = f"{record['timing']['seconds']:.1f}"
    return _Line((run.path.name, state, primary, *shown, seconds, _clock(record["ended"])), record["ended"])


def _last_step(run: RunDirectory) -> int:
    """Of the last whole line of metrics.jsonl; 0 where there is none."""
    try:
        lines = (run.path / "metrics.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return 0
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except json.JSONDecodeError:  # being written, or cut by a kill
            continue
    return 0


def _origin(record: dict[str, Any]) -> str:
    commit, diff = record["git"]["commit"], record["git"]["diff"]
    code = "no git checkout" if commit is None else f"commit {commit[:10]}" + (f" with diff {diff}" if diff else "")
    versions = ", ".join(f"{name} {record['versions'][name]}" for name in ("python", "torch", "transformers"))
    return f"{_clock(record['started'])} to {_clock(record['ended'])}; {code}; {versions}"


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def record_of(run: RunDirectory) -> dict[str, Any]:
    """The record, or UserError where there is none yet."""
    record = run.record()
    if record is None:
        raise UserError(f"{run.path.name}: has no record yet ({status(run)}); run its command again to finish it")
    return record
