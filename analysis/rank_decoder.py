"""The study `rank_decoder`: accuracy, loss and best rate of a pretrained decoder against the rank, with one alpha.

`python analysis/rank_decoder.py`: results/rank_decoder.csv -> figures/rank_decoder.{png,pdf}
(LoRA, Table 6; LoRA Without Regret, Schulman et al. 2025)
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures
from loralab.studies.arms import (
    comparison_row,
    interior,
    level,
    select_columns,
    shared,
    split_arms,
)
from loralab.studies.intervals import dots
from loralab.studies.questions import Claim, Question, gain
from loralab.studies.stats import Interval, slope, whole_mean
from loralab.studies.thinned_curves import curve_columns
from loralab.studies.tuned_rates import tuned_arms

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

SCORES = ["validation/loss", "validation/accuracy", "test/loss", "test/accuracy", "train/loss"]
AXES = ["seed", "task", "lora.init", "lora.ratio", "optim.lr", *captions.SETTING]
KEPT = ["hash", "stage", *AXES, "status", *SCORES, "seconds", "commit", "diff"]
METRICS = {"test/accuracy": "test accuracy", "test/loss": "test loss"}


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run, with its curve; runs on fresh seeds also record which test examples they got right."""
    return select_columns(tables, [*KEPT, *curve_columns(tables.runs)])


def arms_of(frame: pd.DataFrame) -> dict[float, pd.DataFrame]:
    """The arms by their rank, ascending."""
    return split_arms(frame.sort_values("lora.rank"), ["lora.rank"])


def exponent(frame: pd.DataFrame) -> Interval:
    """The slope of the tuned rate's logarithm in that of the rank."""
    found = tuned_arms(frame, "rank_decoder")
    ranks, rates = (np.log2(found[column].astype(float)) for column in ("lora.rank", "tuned"))
    return slope(ranks, rates)


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    arms = arms_of(frame)
    figure, axes = plt.subplots(1, 3, figsize=(plotting.DOUBLE, 2.5))
    _windows(axes[0], arms)
    for ax, (metric, title) in zip(axes[1:], METRICS.items(), strict=True):
        dots(ax, list(arms), [level(own, metric) for own in arms.values()], plotting.COLOURS[0], join="-")
        ax.set_xscale("log", base=2)
        plotting.label_powers(ax.xaxis, list(arms))
        ax.set_xlabel("rank r")
        ax.set_ylabel(f"{title}, fresh seeds")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=len(arms))
    return figure


def _windows(ax: "Axes", arms: dict[float, pd.DataFrame]) -> None:
    """Validation loss against lr_A, a line per rank from light to dark."""
    import matplotlib as mpl

    for shade, (rank, own) in zip(np.linspace(0.85, 0, len(arms)), arms.items(), strict=True):
        line = own[own["stage"] == "grid"].groupby("optim.lr")["validation/loss"].agg(whole_mean)
        colour = mpl.colormaps["viridis"](shade)
        ax.plot(line.index, line, "o-", color=colour, lw=1, ms=4, label=f"r = {rank:g}")
    ax.set(xscale="log", xlabel="lr$_A$", ylabel="validation loss")
    plotting.label_powers(ax.xaxis, sorted({rate for own in arms.values() for rate in own["optim.lr"]}))
    plotting.show_lowest(ax, [loss for own in arms.values() for loss in own["validation/loss"]])


def caption(frame: pd.DataFrame) -> str:
    confirm, grid = (frame[frame["stage"] == stage] for stage in ("confirm", "grid"))
    trials = " or ".join(map(str, grid.groupby("lora.rank").size().unique()))
    return (
        f"{shared(frame)}, LoRA (λ = 1) on q and v, init {'/'.join(frame['lora.init'].unique())}, alpha = "
        f"{frame['lora.alpha'].iloc[0]:g}. Left: rates tried ({trials} a rank, {captions.seeds(grid)}). Right: the "
        f"best on fresh seeds (n = {confirm['seed'].nunique()}), last step; bars: 95% interval of each mean "
        f"(Student t). {captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per rank: its rate, its fresh scores, and its differences from the largest rank."""
    arms = arms_of(frame)
    largest = arms[max(arms)]
    return pd.DataFrame(
        [{"rank": rank, **comparison_row(own, largest), "interior": interior(own)} for rank, own in arms.items()]
    )


def questions(frame: pd.DataFrame) -> list[Question]:
    rows, by, paper = frame[frame["stage"] == "confirm"], ["task"], "MNLI: 91.3 against 91.4"
    claims = [
        gain(rows, rank, 64, arm="lora.rank", by=by, text=f"r = {rank}", paper=paper, number=-0.001, exact=True)
        for rank in (1, 4)
        if {rank, 64} <= set(rows["lora.rank"])
    ]
    where, power = f"({captions.tasks(frame)}, lr_A tuned for each)", exponent(frame)
    asked = [Question(f"is a small rank as good as 64 {where}?", "LoRA, Table 6", "points", claims)] if claims else []
    text = f"is the best rate the same for each rank, with scaling alpha/r {where}?"
    return [*asked, Question(text, "LoRA Without Regret", "", [Claim("lr_A as a power of r", power, "0", 0.0, True)])]


if __name__ == "__main__":
    figures.main(__file__)
