"""The gain of the recommendation over the default, on fresh seeds: both are run to the end on the same ones."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from scipy import stats

from loralab.errors import RunsFailed
from loralab.store.record import Record, split_scores
from loralab.store.run_directory import RunDirectory
from loralab.tuning.session import Launch, Session
from loralab.tuning.trial import Settings, settings_of

__all__ = ["FIRST_SEED", "confirmed", "paired"]

FIRST_SEED = 100  # after the session's own
LEVEL = 0.95


def confirmed(session: Session, found: Settings, launch: Launch, *, seeds: int, first: int) -> dict[str, Any]:
    """The gain on `seeds` fresh seeds, each of which both settings have; first: the number of the first job.

    Its keys: seeds, loss and the primary metric of every other split, as `paired` gives them, and lines for people.
    Raises RunsFailed where a run failed.
    """
    fresh = [session.base.config.seed + FIRST_SEED + i for i in range(seeds)]
    arms = [[settings_of({**dict(settings), "seed": seed}) for seed in fresh] for settings in (found, ())]
    launch([session.job(settings) for arm in arms for settings in arm], first)
    records = [[_record(session.planned(settings).directory) for settings in arm] for arm in arms]
    metric = records[0][0]["metrics"]["primary"]
    wanted = [("validation", "loss"), *((split, metric) for split in split_scores(records[0][0]["metrics"]))]
    scores = {
        f"{split}/{name}": paired(*([_last(record, split, name) for record in arm] for arm in records))
        for split, name in dict.fromkeys(wanted)
    }
    return {"seeds": fresh, "scores": scores, "lines": _lines(fresh, scores)}


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


def _lines(seeds: Sequence[int], scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = [f"against the default, on {len(seeds)} fresh seed{'s' * (len(seeds) > 1)} (difference, 95% interval):"]
    for name, values in scores.items():
        if values["difference"] is None:
            lines.append(f"  {name}: a run diverged ({_shown(values['recommended'])}, {_shown(values['default'])})")
            continue
        interval = "" if values["low"] is None else f" [{values['low']:+.4f}, {values['high']:+.4f}]"
        both = f"{_shown(values['recommended'])} against {_shown(values['default'])}"
        lines.append(f"  {name}: {both}: {values['difference']:+.4f}{interval}")
    return lines


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


def _shown(value: float | None) -> str:
    return "diverged" if value is None else f"{value:.4f}"
