"""How long a run will take, estimated from the records of past runs in the same store."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from loralab.config.shares import evaluations, pause_step
from loralab.errors import UserError
from loralab.store.record import Record
from loralab.store.run_directory import RunDirectory

__all__ = ["Estimator"]

Config = Mapping[str, Any]

# Only to order runs where no past run has the backbone: MiniLM's seconds on one thread for each token of
# max_length=128 (126 ms a step of 32 sentences, which are shorter), and the rows of a task that was never read.
SECONDS_PER_TOKEN = 3e-5
ROWS = 5000


@dataclass(frozen=True)
class _Past:
    """The times of one finished run, or the medians over several."""

    seconds_per_step: float
    seconds_per_example: float  # trained
    seconds_per_row: float  # evaluated
    evaluation_seconds: float
    set_up_seconds: float
    test_passes: float  # 2 where the best step was not the last, else 1


class Estimator:
    """Durations of new runs, from the finished runs of a store; the records are read once, when first needed."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self._typical: dict[tuple[Any, ...], _Past | None] = {}

    def seconds(self, config: Config) -> float | None:
        """Wall seconds of a run of `config` (nested, as a record has it); None where no similar run was trained.

        Of one with `train.pause_at`, those until the pause. Medians over the past runs with its backbone, task, batch
        size, max_length, method, rank and targets; else with the first four; else with its backbone, by trained
        example. Their numbers of threads are ignored.
        """
        steps = self._steps(config)
        if steps is None:
            return None
        for key in _keys(config):
            if past := self._of(key):
                a_step = past.seconds_per_step
                if len(key) == 1:
                    a_step = past.seconds_per_example * config["train"]["batch_size"]
                trained = pause_step(config["train"].get("pause_at"), steps)
                return past.set_up_seconds + trained * a_step + self._evaluation(config, steps, trained, past)
        return None

    def relative(self, config: Config) -> float:
        """A number that is larger for a longer run, for any config: the estimate, or a guess by tokens in seconds."""
        estimate = self.seconds(config)
        if estimate is not None:
            return estimate
        train = config["train"]
        rows = self._train_rows(config) or ROWS
        examples = train["steps"] * train["batch_size"] if train["steps"] is not None else train["epochs"] * rows
        share = min(1.0, train.get("pause_at") or 1.0)
        return float(share * examples * train["max_length"] * SECONDS_PER_TOKEN)

    def _steps(self, config: Config) -> int | None:
        train = config["train"]
        if train["steps"] is not None:
            return int(train["steps"])
        per_epoch = self._per_epoch(config)
        return None if per_epoch is None else max(1, round(train["epochs"] * per_epoch))

    def _per_epoch(self, config: Config) -> int | None:
        rows = self._train_rows(config)
        return None if rows is None else math.ceil(rows / config["train"]["batch_size"])

    def _train_rows(self, config: Config) -> int | None:
        wanted: int | None = config["task"]["train_rows"]
        there = next((rows["train"] for key, rows in self._rows.items() if key[:2] == (_task(config), None)), None)
        if wanted is None or there is None:
            return wanted if there is None else there
        return min(wanted, there)

    def _evaluation(self, config: Config, steps: int, trained: int, past: _Past) -> float:
        """Seconds of its validations and tests; those of a past run where the task's splits are not known.

        A run that pauses after `trained` of its `steps` has a share of the validations, and no test.
        """
        sized = (_task(config), config["task"]["train_rows"], _eval_rows(config))
        known = self._rows.get(sized) or self._rows.get((sized[0], None, sized[2]))
        if known is None:
            return past.evaluation_seconds * trained / steps
        every = config["train"]["eval_every"] or self._per_epoch(config) or steps
        validations = evaluations(every, steps) + config["train"]["eval_first"]
        passes = past.test_passes if validations > 1 else 1
        if trained < steps:
            validations, passes = validations * trained // steps, 0
        return past.seconds_per_row * _evaluated(known, validations, passes)

    def _of(self, key: tuple[Any, ...]) -> _Past | None:
        """The medians over the past runs with this key."""
        if key not in self._typical:
            several = self._by_key.get(key)
            columns = zip(*(vars(past).values() for past in several), strict=True) if several else None
            self._typical[key] = _Past(*map(median, columns)) if columns else None
        return self._typical[key]

    @cached_property
    def _records(self) -> list[Record]:
        return list(_successes(self.store))

    @cached_property
    def _by_key(self) -> dict[tuple[Any, ...], list[_Past]]:
        found: dict[tuple[Any, ...], list[_Past]] = {}
        for record in self._records:
            past = _past(record)
            for key in _keys(record["config"]):
                found.setdefault(key, []).append(past)
        return found

    @cached_property
    def _rows(self) -> dict[tuple[str, int | None, int | None], dict[str, int]]:
        """(task, its train_rows, its eval_rows) -> rows of each split."""
        return {
            (_task(r["config"]), r["config"]["task"]["train_rows"], _eval_rows(r["config"])): r["rows"]
            for r in self._records
        }


def _eval_rows(config: Config) -> int | None:
    """None in a record that is older than the key."""
    found: int | None = config["task"].get("eval_rows")
    return found


def _successes(store: Path) -> Iterator[Record]:
    """The records of successful runs; damaged records are skipped."""
    for path in sorted((store / "runs").glob("*")):
        try:
            record = RunDirectory(path).finished()
        except UserError:
            continue
        if record is not None and record["status"] == "success" and _is_usable(record):
            yield record


def _is_usable(record: Record) -> bool:
    """Whether the record gives an estimate; one of another version may lack a setting."""
    try:
        _past(record), _keys(record["config"]), record["config"]["task"]["train_rows"]
    except (KeyError, TypeError, ZeroDivisionError):
        return False
    return True


def _past(record: Record) -> _Past:
    timing, steps = record["timing"], record["steps"]
    train = record["config"]["train"]
    per_epoch = math.ceil(record["rows"]["train"] / train["batch_size"])
    validations = evaluations(train["eval_every"] or per_epoch, steps) + train["eval_first"]
    validation = record["metrics"]["validation"]
    passes = 1 if validation["best"]["step"] == validation["last"]["step"] else 2
    return _Past(
        seconds_per_step=timing["training_seconds"] / steps,
        seconds_per_example=timing["training_seconds"] / (steps * train["batch_size"]),
        seconds_per_row=timing["evaluation_seconds"] / _evaluated(record["rows"], validations, passes),
        evaluation_seconds=timing["evaluation_seconds"],
        set_up_seconds=timing["set_up_seconds"],
        test_passes=passes,
    )


def _evaluated(rows: Mapping[str, int], validations: int, test_passes: float) -> float:
    """Rows that a run evaluates in all."""
    tests = sum(count for split, count in rows.items() if split.startswith("test"))
    return validations * rows["validation"] + test_passes * tests


def _keys(config: Config) -> list[tuple[Any, ...]]:
    """The keys by which past runs are looked up, the most specific first."""
    train, lora = config["train"], config["lora"]
    method = config["method"]["name"]
    backbone = (config["model"]["name"], config["model"]["path"], config["model"].get("widen", 1))
    shape = (backbone, _task(config), train["batch_size"], train["max_length"])
    adapter = (lora["rank"], *sorted(lora["targets"])) if method == "lora" else ()
    return [(*shape, method, adapter), shape, (backbone,)]


def _task(config: Config) -> str:
    """Its name, and the files of the user's own data."""
    return json.dumps([config["task"]["name"], config["task"]["files"]])
