"""The study `rank_ratio`: the best ratio λ against the rank, lr_A tuned for each pair of them.

`python analysis/rank_ratio.py`: results/rank_ratio.csv -> figures/rank_ratio.{png,pdf} (LoRA+, Figs 14-16)
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from loralab import figures
from loralab.claims import Claim
from loralab.stats import Interval, Minimum, paired, quadratic_minimum

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from loralab.results import Tables

AXES = ["seed", "task", "lora.init", "lora.ratio", "optim.lr", *figures.SETTING]
SCORES = ["validation/loss", "test/loss", "test/accuracy"]
KEPT = ["hash", "stage", *AXES, "status", *SCORES, "seconds", "commit", "diff"]
METRIC = "test/loss"


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row a run."""
    return tables.runs[KEPT]


def fresh(frame: pd.DataFrame, rank: float) -> pd.DataFrame:
    """The runs of fresh seeds of a rank, a row a seed and a column a ratio: their test losses."""
    rows = frame[(frame["stage"] == "confirm") & (frame["lora.rank"] == rank)]
    return rows.pivot(index="seed", columns="lora.ratio", values=METRIC)


def optimum(losses: pd.DataFrame) -> Minimum:
    """The lowest point of a parabola through the losses over log2 λ, each seed with a level of its own (Fieller)."""
    places = np.tile(np.log2(losses.columns.to_numpy(dtype=float)), len(losses))
    seeds, values = np.repeat(np.arange(len(losses)), losses.shape[1]), losses.to_numpy().ravel()
    there = ~np.isnan(values)
    return quadratic_minimum(places[there], values[there], blocks=seeds[there])


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    ranks = sorted(frame["lora.rank"].unique())
    figure, (left, right) = plt.subplots(1, 2, figsize=(figures.DOUBLE * 0.8, 2.2))
    low, high = (float(end(frame["lora.ratio"])) for end in (min, max))
    for rank, colour in zip(ranks, mpl.colormaps["viridis"](np.linspace(0.9, 0, len(ranks))), strict=True):
        losses = fresh(frame, rank)
        ratios = losses.columns.to_numpy(dtype=float)
        means, errors = losses.mean(skipna=False), losses.sub(losses.mean(axis=1), axis=0).sem()
        left.errorbar(ratios, means, yerr=errors, fmt="o-", color=colour, label=f"{rank:g}", elinewidth=0.7)
        found = optimum(losses)
        at, ends = 2.0**found.at, 2.0 ** np.clip([found.low, found.high], np.log2(low) - 1, np.log2(high) + 1)
        right.plot([rank, rank], ends, color=colour, lw=1)
        if np.isfinite(at) and low / 2 <= at <= 2 * high:
            right.plot(rank, at, "o", color=colour, mfc=colour if found.interior else "white")
    for axis in (left.xaxis, right.yaxis):
        axis.axes.set(**{"xscale" if axis is left.xaxis else "yscale": "log"})
        figures.label_powers(axis, sorted(frame["lora.ratio"].unique()))
    right.set_xscale("log", base=2)
    figures.label_powers(right.xaxis, ranks)
    right.axhline(1, color="0.6", lw=0.6, ls=":")
    left.set_xlabel("ratio λ = lr$_B$ / lr$_A$")
    left.set_ylabel("test loss, fresh seeds")
    left.legend(title="rank", title_fontsize=6, ncols=2)
    right.set_xlabel("rank")
    right.set_ylabel("best ratio λ")
    return figure


def caption(frame: pd.DataFrame) -> str:
    confirm = frame[frame["stage"] == "confirm"]
    task = figures.tasks(frame)
    return (
        f"{task}, {figures.setting(frame)}, init {'/'.join(frame['lora.init'].unique())}, five rates for each pair. "
        f"Left: mean of {figures.seeds(confirm)}, bars: one standard error within seeds. Right: lowest point of a "
        "parabola in log λ, bars: 95% (Fieller), cut at the frame; open marks lie outside the ratios tried. "
        f"{figures.provenance(frame)}."
    )


def against_one(frame: pd.DataFrame, rank: float, ratio: float) -> Interval:
    """Test loss of λ = 1 less that of a ratio, paired by seed; above 0: the ratio is better; NaN if a run diverged."""
    losses = fresh(frame, rank)
    if losses[[1.0, ratio]].isna().any(axis=None):
        return Interval(np.nan, np.nan, np.nan, len(losses), np.nan)
    return paired(losses[1.0].to_numpy(), losses[ratio].to_numpy())


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """A row a rank: its best ratio and that ratio's gain over λ = 1."""
    rows = []
    for rank in sorted(frame["lora.rank"].unique()):
        losses = fresh(frame, rank)
        found = optimum(losses)
        best = float(losses.columns[int(losses.mean(skipna=False).argmin())])
        gain = against_one(frame, rank, best) if best != 1 else None
        rows.append(
            {
                "rank": rank,
                "best ratio tried": best,
                "fitted": f"{2.0**found.at:.2g} [{2.0**found.low:.2g}, {2.0**found.high:.2g}]",
                **{f"λ = {ratio:g}": round(loss, 4) for ratio, loss in losses.mean(skipna=False).items()},
                "gain over λ = 1": "" if gain is None else f"{gain.estimate:.4f} [{gain.low:.4f}, {gain.high:.4f}]",
            }
        )
    return pd.DataFrame(rows)


def claims(frame: pd.DataFrame) -> list[Claim]:
    found = []
    task = figures.tasks(frame)
    for rank in sorted(frame["lora.rank"].unique()):
        at = optimum(fresh(frame, rank))
        interval = Interval(at.at, at.low, at.high, frame.loc[frame["stage"] == "confirm", "seed"].nunique(), at.p)
        text = f"the best λ is above 1 at rank {rank:g} ({task}, init A)"
        found.append(
            Claim("rank_ratio", "LoRA+, Figs 14-16", text, "ranks 4, 8, 16: above 1", interval, 0.0, "doublings")
        )
    return found


if __name__ == "__main__":
    figures.main(__file__)
