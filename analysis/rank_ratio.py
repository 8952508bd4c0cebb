"""The study `rank_ratio`: the best ratio λ against the rank, with lr_A tuned for each (rank, λ).

`python analysis/rank_ratio.py`: results/rank_ratio.csv -> figures/rank_ratio.{png,pdf} (LoRA+, Figs 14-16)
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures
from loralab.studies.arms import interior
from loralab.studies.questions import Claim, Question
from loralab.studies.ratios import difference, lowest, optimum, ratio_gains

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

AXES = ["seed", "task", "lora.init", "lora.ratio", "optim.lr", *captions.SETTING]
SCORES = ["validation/loss", "test/loss", "test/accuracy"]
KEPT = ["hash", "stage", *AXES, "status", *SCORES, "seconds", "commit", "diff"]
METRIC = "test/loss"


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run."""
    return tables.runs[KEPT]


def fresh(frame: pd.DataFrame, rank: float) -> pd.DataFrame:
    """Test losses of a rank on fresh seeds: one row per seed, one column per ratio."""
    rows = frame[(frame["stage"] == "confirm") & (frame["lora.rank"] == rank)]
    return rows.pivot(index="seed", columns="lora.ratio", values=METRIC)


def ranks_of(frame: pd.DataFrame) -> Iterator[tuple[float, pd.DataFrame]]:
    """Each rank and its rows."""
    for rank in sorted(frame["lora.rank"].unique()):
        yield rank, frame[frame["lora.rank"] == rank]


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    ranks = sorted(frame["lora.rank"].unique())
    figure, (left, right) = plt.subplots(1, 2, figsize=(plotting.DOUBLE * 0.8, 2.2))
    low, high = (float(end(frame["lora.ratio"])) for end in (min, max))
    for rank, colour in zip(ranks, mpl.colormaps["viridis"](np.linspace(0.9, 0, len(ranks))), strict=True):
        losses = fresh(frame, rank)
        ratios = losses.columns.to_numpy(dtype=float)
        means, errors = losses.mean(skipna=False), losses.sub(losses.mean(axis=1), axis=0).sem()
        left.errorbar(ratios, means, yerr=errors, fmt="o-", color=colour, label=f"{rank:g}", elinewidth=0.7)
        found = optimum(frame[frame["lora.rank"] == rank])
        at, ends = 2.0**found.at, 2.0 ** np.clip([found.low, found.high], np.log2(low) - 1, np.log2(high) + 1)
        right.plot([rank, rank], ends, color=colour, lw=1)
        if np.isfinite(at) and low / 2 <= at <= 2 * high:
            right.plot(rank, at, "o", color=colour, mfc=colour if found.interior else "white")
    for axis in (left.xaxis, right.yaxis):
        axis.axes.set(**{"xscale" if axis is left.xaxis else "yscale": "log"})
        plotting.label_powers(axis, sorted(frame["lora.ratio"].unique()))
    right.set_xscale("log", base=2)
    plotting.label_powers(right.xaxis, ranks)
    right.axhline(1, color="0.6", lw=0.6, ls=":")
    left.set_xlabel("ratio λ = lr$_B$ / lr$_A$")
    left.set_ylabel("test loss, fresh seeds")
    left.legend(title="rank", title_fontsize=6, ncols=2)
    right.set_xlabel("rank")
    right.set_ylabel("best ratio λ")
    return figure


def caption(frame: pd.DataFrame) -> str:
    confirm = frame[frame["stage"] == "confirm"]
    return (
        f"{captions.tasks(frame)}, {captions.setting(frame)}, init {'/'.join(frame['lora.init'].unique())}, five rates "
        f"for each pair. Left: mean of {captions.seeds(confirm)}, bars: one standard error within seeds. Right: lowest "
        "point of a parabola in log λ through the arms' means, bars: 95%, of the spread between seeds (Fieller; n = "
        f"{confirm['seed'].nunique()}), cut at the frame; open marks lie outside the ratios tried. "
        f"{captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per rank: the parabola's minimum, the best ratio tried, and its difference in loss from λ = 1."""
    rows = []
    for rank, of in ranks_of(frame):
        means, found = fresh(frame, rank).mean(skipna=False), optimum(of)
        best = float(means.index[int(means.argmin())])
        less = difference(of, best, METRIC)
        rows.append(
            {
                "rank": rank,
                "best ratio tried": best,
                "fitted": f"{2.0**found.at:.2g} [{2.0**found.low:.2g}, {2.0**found.high:.2g}]",
                **{f"λ = {ratio:g}": round(loss, 4) for ratio, loss in means.items()},
                "best less λ = 1": f"{less.estimate:.4f} [{less.low:.4f}, {less.high:.4f}]",
                "interior": all(interior(of, ratio) for ratio in means.index),
            }
        )
    return pd.DataFrame(rows)


def questions(frame: pd.DataFrame) -> list[Question]:
    paper = "ranks 4, 8, 16: above 1"
    claims = [Claim("all ranks", lowest(frame, ["lora.rank"]), paper)]
    gains = ratio_gains(frame, ["lora.rank"])
    where = f"({captions.tasks(frame)}, init A)"
    return [
        Question(
            f"does a λ above 1 gain accuracy over λ = 1, over the ranks {where}?", "LoRA+, abstract", "points", gains
        ),
        Question(f"at which λ is the test loss lowest {where}?", "LoRA+, Figs 14-16", "doublings", claims),
    ]


if __name__ == "__main__":
    figures.main(__file__)
