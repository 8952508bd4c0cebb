"""A store's runs as rows of values by key: settings, scores and status, read from their files alone, without torch."""

import contextlib
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from loralab.config.keys import config_values, keys, type_of
from loralab.config.schema import METHODS, Config
from loralab.config.stored import stored_values
from loralab.errors import UserError
from loralab.store.labels import labels_of
from loralab.store.record import PausedRecord, Record, split_scores
from loralab.store.run_directory import RunDirectory, Standing, in_words, refuse_missing, standing

__all__ = ["Row", "known_keys", "lower_is_better", "row_of", "rows_of"]

_NOT_OF_THE_RUN = ("store", "name", "tags", "train.again", "train.pause_at")
_NAMES = ("model", "task", "method")  # nodes that go by one word
_LOWER = ("loss", "mse", "perplexity")


@dataclass(frozen=True)
class Row:
    """One run. settings: `model`, `task` (its title) and `method`, then every key that its method uses.

    scores: at the last step (`test/accuracy`) and at the best validation step (`best/test/accuracy`), as in the tables
    of a sweep; a diverged run has none of the first kind. when: its last change, in seconds since the epoch; error:
    what is wrong with a damaged one.
    """

    run: RunDirectory
    standing: Standing
    when: float
    facts: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """In words, with the step of a run that has not ended."""
        return in_words(self.standing)

    @property
    def error(self) -> str | None:
        return self.standing.error

    def value(self, key: str) -> Any:
        """The setting, score or fact; None where the run has none."""
        return next((some[key] for some in (self.settings, self.scores, self.facts) if key in some), None)


def rows_of(store: Path) -> list[Row]:
    """Every run of the store, the latest last; raises UserError where there is no such store."""
    refuse_missing(store)
    rows = [row_of(RunDirectory(path)) for path in (store / "runs").glob("*") if _is_run(path)]
    return sorted(rows, key=lambda row: row.when)


def row_of(run: RunDirectory) -> Row:
    """The row of one run, whatever its state."""
    now, labels = standing(run), labels_of(run.path)
    record = now.record
    facts: dict[str, Any] = {
        "run": run.path.name,
        "hash": run.hash,
        "status": now.status,
        "name": labels.name,
        "tags": [*labels.tags],
    }
    facts |= {"metric": None, "step": now.step, "seconds": None, "started": None, "ended": None}
    if record is None or record["status"] == "failed":
        return Row(run, now, _moved(run.path), facts, _settings(_written(run)))
    facts |= {"metric": record["metrics"]["primary"], "step": record["steps"], "seconds": record["timing"]["seconds"]}
    facts |= {"started": record["started"], "ended": record["ended"]}
    return Row(run, now, record["ended"], facts, _settings(record["config"]), _scores(record))


@functools.cache
def known_keys() -> tuple[str, ...]:
    """The keys of `Row.settings`, in the order of the schema."""
    leaves = [key for key in keys(Config) if not is_dataclass(type_of(key, Config))]
    named = [f"{name}.name" for name in _NAMES]
    left = [key for key in leaves if key not in (*_NOT_OF_THE_RUN, *named) and not key.startswith("tracker.")]
    return (*_NAMES, *left)


def lower_is_better(key: str) -> bool:
    """Whether a score, such as `test/loss`, is the better the lower it is."""
    return key.rpartition("/")[2] in _LOWER


def _settings(config: Any) -> dict[str, Any]:
    """The settings in a config as it was written; a key that older versions lack has the value of their runs."""
    if not isinstance(config, dict) or not config:
        return {}
    found: dict[str, Any] = {name: _at(config, f"{name}.name") for name in _NAMES}
    files = _at(config, "task.files.train")
    found["task"] = _at(config, "task.title") or (Path(files).stem if isinstance(files, str) else None) or found["task"]
    used = METHODS.get(str(found["method"]), ())
    unused = {node for nodes in METHODS.values() for node in nodes} - set(used)
    for key in known_keys()[len(_NAMES) :]:
        value = _at(config, key, _defaults().get(key, MISSING))
        if value != MISSING and key.partition(".")[0] not in unused:
            found[key] = value
    return found


@functools.cache
def _defaults() -> dict[str, Any]:
    """The values of keys that were added after runs were stored."""
    values = config_values(Config())
    return {key: value for key in known_keys() if (value := _at(values, key, MISSING)) != MISSING}


def _at(values: Any, key: str, default: Any = None) -> Any:
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            return default
        values = values[part]
    return values


def _written(run: RunDirectory) -> Any:
    """The config.yaml of a run without a finished record; nothing where it cannot be read."""
    try:
        return stored_values(run.path / "config.yaml")
    except UserError:
        return {}


def _scores(record: Record | PausedRecord) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for split, scores in split_scores(record["metrics"]).items():
        for prefix, values in (("", scores["last"]), ("best/", scores["best"])):
            if values is not None and (prefix or record["status"] != "diverged"):
                found |= {f"{prefix}{split}/{name}": value for name, value in values.items() if name != "step"}
    return found


def _is_run(path: Path) -> bool:
    """Whether it has a config.yaml or a record.json, in whatever state."""
    try:
        return any((path / name).exists() for name in ("config.yaml", "record.json"))
    except OSError:  # it may not be read, which its line says
        return True


def _moved(directory: Path) -> float:
    """When a file in the directory, or the directory, last changed."""
    times = [0.0]
    with contextlib.suppress(OSError):  # it may not be read, or is being removed
        times += [path.lstat().st_mtime for path in (directory, *directory.iterdir())]
    return max(times)
