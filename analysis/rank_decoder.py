"""The study `rank_decoder`: accuracy, loss and best rate of a pretrained decoder against the rank, with one alpha.

`python analysis/rank_decoder.py`: results/rank_decoder.csv -> figures/rank_decoder.{png,pdf}
(LoRA, Table 6; LoRA Without Regret, Schulman et al. 2025)
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures
from loralab.studies.arms import interior, level, paired_difference, select_columns, shared, split_arms
from loralab.studies.claims import Claim
from loralab.studies.intervals import dots
from loralab.studies.stats import Interval, slope, whole_mean
from loralab.studies.thinned_curves import curve_columns
from loralab.studies.tuned_rates import tuned_arms
from loralab.studies.verdicts import ACCURACY_MARGIN, judged_row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

SCORES = ["validation/loss", "validation/accuracy", "test/loss", "test/accuracy", "train/loss"]
AXES = ["seed", "task", "lora.init", "lora.ratio", "optim.lr", *captions.SETTING]
KEPT = ["hash", "stage", *AXES, "status", *SCORES, "seconds", "commit", "diff"]
METRICS = {"test/accuracy": "test accuracy", "test/loss": "test loss"}
HALF_WAY = -0.25  # between the law's exponent of the rank with scaling alpha/r, 0, and that with scaling 1, -1/2


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run, with its curve; runs on fresh seeds also record which test examples they got right."""
    return select_columns(tables, [*KEPT, *curve_columns(tables.runs)])


def arms_of(frame: pd.DataFrame) -> dict[float, pd.DataFrame]:
    """The arms by their rank, ascending."""
    return split_arms(frame.sort_values("lora.rank"), ["lora.rank"])


def exponent(frame: pd.DataFrame) -> Interval:
    """The slope of the tuned rate's logarithm in that of the rank; p: against HALF_WAY."""
    found = tuned_arms(frame, "rank_decoder")
    ranks, rates = (np.log2(found[column].astype(float)) for column in ("lora.rank", "tuned"))
    return slope(ranks, rates, null=HALF_WAY)


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
        [{"rank": rank, **judged_row(own, largest), "interior": interior(own)} for rank, own in arms.items()]
    )


def claims(frame: pd.DataFrame) -> list[Claim]:
    arms, where = arms_of(frame), f"{captions.tasks(frame)}, q and v, lr_A tuned for each"
    made = []
    if {1, 4, 64} <= arms.keys():
        loss = paired_difference(arms[1], arms[64], "test/accuracy", null=-ACCURACY_MARGIN)
        text = f"r = 1 loses less than half a point of accuracy to r = 64 ({where})"
        paper = "MNLI: r = 1, 4, 64: 91.3, 91.3, 91.4"
        made.append(Claim("rank_decoder", "LoRA, Table 6", text, paper, loss, -ACCURACY_MARGIN, "points"))
        more = paired_difference(arms[64], arms[4], "test/accuracy", null=ACCURACY_MARGIN)
        text = f"r = 64 gains less than half a point of accuracy over r = 4 ({where})"
        made.append(Claim("rank_decoder", "LoRA, Table 6", text, paper, more, ACCURACY_MARGIN, "points", below=True))
    text = f"with scaling alpha/r the best rate's exponent in r is above {HALF_WAY:g}, not -1/2 ({where})"
    made.append(Claim("rank_decoder", "LoRA Without Regret", text, "0", exponent(frame), HALF_WAY))
    return made


if __name__ == "__main__":
    figures.main(__file__)
