"""What `--dry-run` and `loralab status` print: a sweep's runs, the status of each, and the time left."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from loralab.config.keys import config_values
from loralab.config.overrides import settings, to_override
from loralab.store.run_directory import FINAL
from loralab.sweeps.cell import Cell
from loralab.sweeps.collect import mixed_versions, table
from loralab.sweeps.estimate import Estimator
from loralab.sweeps.grid import fresh_axes
from loralab.sweeps.resources import check_pack, pack_size, slots
from loralab.sweeps.study import Study, Unfinished
from loralab.text import align, clock, count

if TYPE_CHECKING:
    import pandas as pd

    from loralab.runs.plan import Plan

__all__ = ["forecast", "heading", "state"]

SHAPES = 4  # of batches and adapters whose memory is predicted, a second or a few each
UNDONE = ("running", "paused", "cut off", "failed", "damaged")  # listed in `loralab status`


def forecast(study: Study) -> list[str]:
    """One line per run, with its status and expected duration, then the totals."""
    cells, runs, likely = _look(study)
    names = list(dict.fromkeys(name for cell in cells for name in cell.axes))
    header = ("run", "status", *names, "about")
    rows = [
        (
            cell.run.rpartition("-")[2],
            status,
            *(to_override(cell.axes[name]) if name in cell.axes else "" for name in names),
            "" if not left else "?" if seconds is None else clock(seconds),
        )
        for cell, status, left, seconds in zip(cells, runs["status"], runs["left"], likely, strict=True)
    ]
    memory = _memory(study, [cell for cell, left in zip(cells, runs["left"], strict=True) if left])
    totals = _totals(study, cells, runs, likely)
    return [*heading(study), *align([header, *rows], text=2 + len(names)), "", *memory, *totals]


def _memory(study: Study, cells: Sequence[Cell]) -> list[str]:
    """The predicted peak of the run that takes most memory, or of the largest batches where there are many shapes."""
    from loralab.runs.memory import predicted, shape_of  # here, since `loralab status` predicts nothing

    shapes: dict[tuple[object, ...], Plan] = {}
    for cell in cells:
        planned = study.planned(cell.overrides)
        shapes.setdefault(shape_of(planned.config), planned)
    if not shapes:
        return []
    largest = sorted(shapes.values(), key=_tokens, reverse=True)[:SHAPES]
    found = [(peak, planned) for planned in largest if (peak := predicted(planned)) is not None]
    if not found:
        return ["peak memory of a step: not known before the backbone is read"]
    peak, planned = max(found, key=lambda pair: pair[0].peak)
    train = planned.config.train
    return [
        f"peak memory of a step: about {_size(peak.peak)} (frozen weights {_size(peak.frozen)}, trained "
        f"{_size(peak.trained)}, activations {_size(peak.activations)}) at {train.batch_size} x {train.max_length} "
        "tokens, beside the libraries' own"
    ]


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _tokens(planned: "Plan") -> tuple[int, int]:
    train = planned.config.train
    return train.batch_size * train.max_length, planned.config.lora.rank


def state(study: Study) -> list[str]:
    """Runs by status, a line for each that runs or failed, the time left, and mixed versions of the code."""
    cells, runs, likely = _look(study)
    lines = [*heading(study), *_totals(study, cells, runs, likely)]
    shown = [i for i, status in enumerate(runs["status"]) if status in UNDONE]
    if shown:
        rows = [
            (runs["hash"][i], runs["status"][i], _step(runs["step"][i]), _settings(cells[i]), _text(runs["error"][i]))
            for i in shown
        ]
        lines += ["", *align([("run", "status", "step", "settings", ""), *rows], text=5)]
    mixed = mixed_versions(runs)
    return [*lines, *([""] if mixed else []), *mixed]


def _look(study: Study) -> tuple[list[Cell], "pd.DataFrame", list[float | None]]:
    """The cells, the table of their runs, and the expected seconds of each; None for done and unknown.

    The table has a column `left`: whether there is something to train.
    """
    cells = study.cells()
    runs = table(study.store, cells)
    times = Estimator(study.store)
    runs["left"] = [
        study.planned(cell.overrides).reached() is None if s == "paused" else s not in FINAL
        for cell, s in zip(cells, runs["status"], strict=True)
    ]
    likely = [_seconds(study, times, cell) if left else None for left, cell in zip(runs["left"], cells, strict=True)]
    return cells, runs, likely


def heading(study: Study) -> list[str]:
    """Its name and what its file says about it; then an empty line."""
    if study.name is None:
        return []
    facts = [f"  {key}: {study.spec.study[key]}" for key in ("claim", "metric", "cost") if key in study.spec.study]
    return [f"study {study.name}{' (smoke size)' if study.smoke else ''}", *facts, ""]


def _totals(study: Study, cells: Sequence[Cell], runs: "pd.DataFrame", likely: Sequence[float | None]) -> list[str]:
    tally = Counter(runs["status"])
    lines = [f"{count(len(cells), 'run')}: {', '.join(f'{n} {status}' for status, n in tally.most_common())}"]
    left = [seconds for seconds, there in zip(likely, runs["left"], strict=True) if there]
    if left and None not in left:
        places = _places(study)
        longest = max(s for s in left if s is not None)
        seconds = max(longest, math.fsum(s for s in left if s is not None) / places)
        packed = _packed(study)
        at_once = f"{places} at a time" if packed == 1 else f"in packs of at most {packed}, {places} at a time"
        lines.append(f"{count(len(left), 'run')} to train, {at_once}: about {clock(seconds)}")
    elif left:
        lines.append(f"{count(len(left), 'run')} to train; no similar past run gives an estimate of the time")
    return lines + _second_stage(study)


def _second_stage(study: Study) -> list[str]:
    confirm = study.spec.confirm
    if confirm is None:
        return []
    try:
        chosen = study.chosen()
    except Unfinished as why:
        fresh = math.prod(len(axis.rows) for axis in fresh_axes(study.spec, study.arguments, smoke=study.smoke))
        arms = {to_override([settings(job).get(key) for key in confirm.by]) for job in study.grid}
        each = f"{fresh} for the best of each of {count(len(arms), 'arm')} ({', '.join(confirm.by)})"
        return [f"second stage: {count(fresh * len(arms), 'run')} on fresh seeds, {each}; but {why}"]
    fresh = len(study.second_jobs()) // len(chosen)
    lines = ["  " + "  ".join(f"{k}={to_override(v)}" for k, v in each.items() if v == v) for each in chosen]
    return [f"selected by {confirm.select}, for {count(fresh, 'fresh run')} each:", *lines, *study.warnings()]


def _places(study: Study) -> int:
    """How many runs the pool trains at once; one under another launcher, whose queue is unknown."""
    if study.composer.master.hydra.runtime.choices["hydra/launcher"] != "pool":
        return 1
    return len(_environments(study))


def _packed(study: Study) -> int:
    """The most runs that the pool trains together in one place."""
    if study.composer.master.hydra.runtime.choices["hydra/launcher"] != "pool":
        return 1
    pack = study.composer.master.hydra.launcher.pack
    check_pack(pack)
    return pack_size(pack, lambda: _environments(study))


def _environments(study: Study) -> list[dict[str, str]]:
    train, launcher = study.planned(study.grid[0]).config.train, study.composer.master.hydra.launcher
    return slots(device=train.device, threads=train.threads, count=launcher.slots, per_gpu=launcher.slots_per_gpu)


def _seconds(study: Study, times: Estimator, cell: Cell) -> float | None:
    return times.seconds(config_values(study.planned(cell.overrides).config))


def _settings(cell: Cell) -> str:
    return " ".join(f"{name}={to_override(value)}" for name, value in cell.axes.items())


def _step(value: float) -> str:
    return "" if value != value else f"{value:.0f}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
