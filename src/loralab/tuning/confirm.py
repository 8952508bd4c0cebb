"""The gain of the recommendation over the default, on fresh seeds: both are run to the end on the same ones."""

import itertools
import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from scipy import stats

from loralab.errors import RunsFailed
from loralab.store.record import Record, split_scores
from loralab.store.run_directory import RunDirectory
from loralab.tuning.session import Launch, Session
from loralab.tuning.trial import Settings, settings_of

__all__ = ["FIRST_SEED", "confirmed", "paired"]

FIRST_SEED = 100  # above the session's own; the next ones, where the search has seen runs of these
LEVEL = 0.95


def confirmed(session: Session, found: Settings, launch: Launch, *, seeds: int, first: int) -> dict[str, Any]:
    """The gain on `seeds` fresh seeds, each of which both settings have; first: the number of the first job.

    Its keys: seeds; scores: by "split/name", as `paired` gives them, of the validation loss and of each split's primary
    metric. Raises RunsFailed where a run failed.
    """
    used = {dict(settings)["seed"] for settings in session.looks}
    unused = (seed for seed in itertools.count(session.base.config.seed + FIRST_SEED) if seed not in used)
    fresh = list(itertools.islice(unused, seeds))
    arms = [[settings_of({**dict(settings), "seed": seed}) for seed in fresh] for settings in (found, ())]
    launch([session.job(settings) for arm in arms for settings in arm], first)
    records = [[_record(session.planned(settings).directory) for settings in arm] for arm in arms]
    metric = records[0][0]["metrics"]["primary"]
    wanted = [("validation", "loss"), *((split, metric) for split in split_scores(records[0][0]["metrics"]))]
    scores = {
        f"{split}/{name}": paired(*([_last(record, split, name) for record in arm] for arm in records))
        for split, name in dict.fromkeys(wanted)
    }
    return {"seeds": fresh, "scores": scores}


def paired(found: Sequence[float], default: Sequence[float]) -> dict[str, Any]:
    """The means of both, and that of their differences with its interval (Student's t, 95%).

    low and high are None for one seed; a run that diverged leaves no difference, and all three are None.
    """
    differences = [a - b for a, b in zip(found, default, strict=True)]
    values: dict[str, Any] = {
        "recommended": _finite(fmean(found)), "default": _finite(fmean(default)), "difference": None, "low": None,
        "high": None,
    }  # fmt: skip
    if not all(map(math.isfinite, differences)):
        return values
    values["difference"] = fmean(differences)
    if len(differences) > 1:
        half = float(stats.sem(differences) * stats.t.ppf((1 + LEVEL) / 2, len(differences) - 1))
        values |= {"low": values["difference"] - half, "high": values["difference"] + half}
    return values


def _record(directory: RunDirectory) -> Record:
    record = directory.finished()
    if record is None:
        raise RunsFailed(f"run {directory.hash} on a fresh seed has not ended; the same command tries again")
    return record


def _last(record: Record, split: str, name: str) -> float:
    scores = split_scores(record["metrics"])[split]["last"]
    value = None if scores is None or record["status"] == "diverged" else scores.get(name)
    return math.nan if value is None else value


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
