"""The arms of a study of ratios, named by λ: all tuned in the same way, compared with λ = 1."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from loralab.studies.arms import confirm_runs, paired_difference
from loralab.studies.intervals import POOLED, forest
from loralab.studies.minima import Minimum, quadratic_minimum, seed_minimum, surface_minimum
from loralab.studies.questions import Claim, gain
from loralab.studies.stats import Interval, whole_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes


__all__ = [
    "ADVICE",
    "BANDS",
    "arm",
    "difference",
    "forests",
    "lowest",
    "optimum",
    "pair_optimum",
    "rate_optimum",
    "ratio_gains",
    "ratios",
    "tuned",
]

ADVICE = 16  # LoRA+'s fixed ratio


BANDS: dict[str, dict[str, Any]] = {  # of a forest, by metric: half a point counts as none
    "test/accuracy": {"scale": 100, "margin": 0.005, "claimed": ("LoRA+ claims 1 to 2", 0.01, 0.02)},
    "test/loss": {},
}


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


def ratio_gains(frame: pd.DataFrame, by: Sequence[str]) -> list[Claim]:
    """The claims that each λ above 1 gains a point over λ = 1 (LoRA+, abstract: 1 to 2%), the paper's advice first.

    by: the columns that tell settings apart.
    """
    rows = frame[frame["stage"] == "confirm"]
    above = sorted((ratio for ratio in ratios(frame) if ratio > 1), key=lambda ratio: (ratio != ADVICE, ratio))
    return [
        gain(rows, ratio, 1, arm="lora.ratio", by=by, text=f"λ = {ratio:g}", paper="1 to 2%", number=0.01)
        for ratio in above
    ]


def optimum(rows: pd.DataFrame, by: Sequence[str] = ()) -> Minimum:
    """log2 of the ratio at the minimum of a parabola through the arms' mean test losses on fresh seeds.

    The interval is of the spread between seeds: each, in each setting (by), has its own parabola. Not identified if an
    arm has a diverged run.
    """
    confirm = rows[rows["stage"] == "confirm"]
    losses = confirm.pivot(index=[*by, "seed"], columns="lora.ratio", values="test/loss")
    return seed_minimum(np.log2(losses.columns.to_numpy(dtype=float)), losses)


def lowest(rows: pd.DataFrame, by: Sequence[str] = ()) -> Interval:
    """`optimum` as an interval, whose n counts the seeds of all settings."""
    found, fresh = optimum(rows, by), rows[rows["stage"] == "confirm"]
    return Interval(found.at, found.low, found.high, len(fresh[[*by, "seed"]].drop_duplicates()), found.p)


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


def forests(
    axes: Sequence["Axes"],
    settings: Mapping[str, pd.DataFrame],
    pooled: Callable[[float, str], Interval] | None = None,
) -> None:
    """The differences of each ratio from λ = 1 in accuracy and in loss, one panel each; a mark for each setting's rows.

    pooled(ratio, metric): the difference over all settings.
    """
    others = [ratio for ratio in ratios(next(iter(settings.values()))) if ratio != 1]
    for ax, (metric, bands) in zip(axes, BANDS.items(), strict=True):
        lines = {name: [difference(rows, ratio, metric) for ratio in others] for name, rows in settings.items()}
        if pooled is not None:
            lines[POOLED] = [pooled(ratio, metric) for ratio in others]
        forest(ax, [f"λ = {ratio:g}" for ratio in others], lines, **bands)
        ax.locator_params(axis="x", nbins=6)
    axes[0].set(xlabel="accuracy over λ = 1 (points)", title="right is better")
    axes[1].set(xlabel="test loss over λ = 1 (nats)", title="left is better")
    axes[1].set_yticklabels([])
    axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=4)
