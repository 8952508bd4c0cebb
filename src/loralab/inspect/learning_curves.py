"""`loralab curves`: the learning curves of one or several runs, in the terminal and as a figure.

Each metric is drawn against the step: the training loss, and the loss and the primary metric of the validation split.
A run that is still training is shown as far as it came.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from loralab.errors import UserError
from loralab.runs.differing import differing, label_of
from loralab.runs.rows import row_of
from loralab.store.run_directory import RunDirectory
from loralab.sweeps.cell import Cell
from loralab.sweeps.collect import curves
from loralab.text import align

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Learned", "as_json", "drawn", "read", "table"]

_BLOCKS = "▁▂▃▄▅▆▇█"
_CELLS = 40  # of a curve in the terminal
_MOST = 7  # curves in one figure: as many as there are colours


@dataclass(frozen=True, eq=False)
class Learned:
    """One run's curves: `split/metric` -> its steps and values, ascending in step; NaN where a value is not finite."""

    name: str
    label: str
    values: dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]


def read(runs: Sequence[RunDirectory]) -> list[Learned]:
    """The curves of each run, labelled by the settings in which the runs differ; UserError where one has none yet."""
    found = []
    for run, label in zip(runs, _labels(runs), strict=True):
        long = curves(run.path.parent.parent, [Cell((), {}, "", run.path.name)])
        long = long[long["split"].isin(["train", "validation"])]
        if long.empty:
            raise UserError(f"{run.path.name}: has no curve yet: nothing is logged before train.log_every steps")
        values = {
            f"{split}/{name}": (own["step"].to_numpy(), own["value"].to_numpy())
            for (split, name), own in long.groupby(["split", "name"], sort=False)
        }
        found.append(Learned(run.path.name, label, values))
    return found


def _labels(runs: Sequence[RunDirectory]) -> list[str]:
    """`lora.ratio=4 seed=1`: the settings in which a run differs from some other; the name of an only run."""
    rows = [row_of(run) for run in runs]
    keys = differing(rows)
    return [label_of(row, keys) or row.run.path.name for row in rows]


def _metrics(runs: Sequence[Learned]) -> list[str]:
    """The training loss, the validation loss, then the other validation metrics, in the order of the first run."""
    names = dict.fromkeys(name for run in runs for name in run.values)
    first = [name for name in ("train/loss", "validation/loss") if name in names]
    return [*first, *(name for name in names if name not in first and name.startswith("validation/"))]


def table(runs: Sequence[Learned]) -> list[str]:
    """A block for each metric: the runs' curves on one scale, with their first, lowest, highest and last values."""
    lines: list[str] = []
    for metric in _metrics(runs):
        own = [(run.label, *run.values[metric]) for run in runs if metric in run.values]
        scale = np.concatenate([values for _, _, values in own])
        last = max(int(steps[-1]) for _, steps, _ in own)
        rows: list[tuple[str, ...]] = [(metric, f"steps 0 to {last}", "first", "lowest", "highest", "last")]
        for label, steps, values in own:
            finite = values[np.isfinite(values)]
            ends = (values[0], finite.min(), finite.max(), values[-1]) if len(finite) else (np.nan,) * 4
            rows.append((label, _drawn_in_text(steps, values, scale, last), *map(_number, ends)))
        lines += [*align(rows, text=2), ""]
    return lines[:-1]


def _number(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else "-"


def _drawn_in_text(
    steps: npt.NDArray[np.int64], values: npt.NDArray[np.float64], scale: npt.NDArray[np.float64], last: int
) -> str:
    """A curve as blocks: the last value up to each cell's step; blank before the first and where it is not finite."""
    finite = scale[np.isfinite(scale)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
    text = ""
    for cell in range(_CELLS):
        at = int(np.searchsorted(steps, round(last * (cell + 1) / _CELLS), side="right")) - 1
        value = values[at] if at >= 0 else np.nan
        share = (value - low) / (high - low) if high > low else 0.0
        text += _BLOCKS[round(share * (len(_BLOCKS) - 1))] if np.isfinite(share) else " "
        if steps[-1] < last * cell / _CELLS:
            return text[:-1]
    return text


def drawn(runs: Sequence[Learned]) -> "Figure":
    """A panel for each metric, a line for each run."""
    import matplotlib.pyplot as plt

    from loralab import plotting

    if len(runs) > _MOST:
        raise UserError(f"loralab curves: got {len(runs)} runs; a figure tells at most {_MOST} curves apart")
    metrics = _metrics(runs)
    columns = 2 if len(metrics) == 4 else min(3, len(metrics))
    rows = -(-len(metrics) // columns)
    size = (max(plotting.SINGLE, 2.3 * columns), 0.5 + 2.0 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for ax, metric in zip(axes.flat, metrics, strict=False):
        for run, colour in zip(runs, plotting.COLOURS, strict=False):
            if metric in run.values:
                steps, values = run.values[metric]
                dots = "o" if len(steps) <= 12 else ""
                ax.plot(steps, values, marker=dots, color=colour, label=run.label)
        ax.set(xlabel="step", ylabel=metric.replace("/", " "))
    for ax in axes.flat[len(metrics) :]:
        ax.set_visible(False)
    lines = {line.get_label(): line for ax in axes.flat for line in ax.lines}
    figure.legend(lines.values(), lines.keys(), loc="outside upper left", ncols=1)
    return figure


def as_json(runs: Sequence[Learned]) -> list[dict[str, Any]]:
    """Every value of every curve; what was not finite is null."""
    return [
        {
            "run": run.name,
            "label": run.label,
            "curves": {
                metric: {
                    "step": steps.tolist(),
                    "value": [value if np.isfinite(value) else None for value in values.tolist()],
                }
                for metric, (steps, values) in run.values.items()
            },
        }
        for run in runs
    ]
