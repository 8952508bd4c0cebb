"""The arms of a study of ratios, named by λ: all tuned in the same way, compared with λ = 1."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.studies.arms import confirm_runs, level, paired_difference
from loralab.studies.intervals import dots
from loralab.studies.minima import Minimum, quadratic_minimum, seed_minimum, surface_minimum
from loralab.studies.stats import Interval, whole_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes


__all__ = [
    "against_ratio",
    "arm",
    "best_ratio",
    "difference",
    "optimum",
    "pair_optimum",
    "rate_optimum",
    "ratios",
    "tuned",
]


def _of(rows: pd.DataFrame, ratio: float) -> pd.DataFrame:
    return rows[rows["lora.ratio"] == ratio]


def arm(rows: pd.DataFrame, ratio: float) -> pd.DataFrame:
    """The runs of a ratio on fresh seeds."""
    return confirm_runs(_of(rows, ratio))


def ratios(rows: pd.DataFrame) -> list[float]:
    return sorted(rows["lora.ratio"].unique())


def difference(rows: pd.DataFrame, ratio: float, metric: str, *, null: float = 0.0) -> Interval:
    """A ratio's `paired_difference` from λ = 1."""
    return paired_difference(_of(rows, ratio), _of(rows, 1), metric, null=null)


def tuned(rows: pd.DataFrame) -> pd.DataFrame:
    """The mean validation loss over the selection seeds, for each λ and lr_A of the windows; NaN if one diverged."""
    grid = rows[rows["stage"] == "grid"]
    found = grid.groupby(["lora.ratio", "optim.lr"])["validation/loss"].agg(whole_mean)
    return found.reset_index()


def best_ratio(rows: pd.DataFrame, *, above: float = 0.0) -> float:
    """The ratio with the lowest validation loss over the windows, among the ratios above a bound."""
    found = tuned(rows)
    found = found[found["lora.ratio"] > above]
    return float(found.nsmallest(1, "validation/loss")["lora.ratio"].iloc[0])


def optimum(rows: pd.DataFrame) -> Minimum:
    """log2 of the ratio at the minimum of a parabola through the arms' mean test losses on fresh seeds.

    The interval is of the spread between seeds: each has its own parabola. Not identified if an arm has a diverged run.
    """
    losses = rows[rows["stage"] == "confirm"].pivot(index="seed", columns="lora.ratio", values="test/loss")
    return seed_minimum(np.log2(losses.columns.to_numpy(dtype=float)), losses)


def rate_optimum(rows: pd.DataFrame, ratio: float = 1) -> Minimum:
    """log2 of lr_A at the minimum of a parabola through a ratio's validation losses on the selection seeds.

    The fit uses the rate with the lowest mean and the rates within a factor of two of it, because training collapses at
    higher rates. The unit is the run; each seed has its own offset. NaN if the lowest mean is at the window's end.
    """
    own = _of(rows, ratio)
    grid = own[own["stage"] == "grid"]
    means = grid.groupby("optim.lr")["validation/loss"].agg(whole_mean).dropna()
    if means.empty:
        return quadratic_minimum([], [])
    rates = means.index.to_numpy(dtype=float)
    near = grid[grid["optim.lr"].isin(rates[np.abs(np.log2(rates / rates[int(means.argmin())])) < 1.1])]
    return quadratic_minimum(np.log2(near["optim.lr"]), near["validation/loss"], blocks=near["seed"])


def pair_optimum(rows: pd.DataFrame) -> tuple[Minimum, Minimum]:
    """log2 of lr_A and of lr_B at the minimum of a quadratic surface through the windows' cells.

    A cell is a mean validation loss over the selection seeds, and is the unit. The fit uses the better half of the
    cells, because no quadratic fits the cliff where training collapses. Interior: inside the rates and the ratios of
    these cells.
    """
    cells = tuned(rows).dropna(subset="validation/loss")
    cells = cells[cells["validation/loss"] <= cells["validation/loss"].median()]
    ratio, lr_A = (np.log2(cells[key].to_numpy(dtype=float)) for key in ("lora.ratio", "optim.lr"))
    return surface_minimum(np.column_stack([lr_A, lr_A + ratio]), cells["validation/loss"].to_numpy(dtype=float))


def against_ratio(ax: "Axes", rows: pd.DataFrame, metric: str, label: str, at: int) -> None:
    """Each ratio's mean on fresh seeds with its own interval, against the ratio."""
    found = ratios(rows)
    places = np.array(found) * 2 ** (0.16 * (at - 0.5))
    levels = [level(_of(rows, ratio), metric) for ratio in found]
    dots(ax, places, levels, plotting.COLOURS[at], label, join="-")
    ax.set_xscale("log", base=2)
    plotting.label_powers(ax.xaxis, found)
