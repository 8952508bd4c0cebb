"""The study `targets`: which maps to adapt at a fixed budget of parameters, with lr_A tuned for each set of targets.

`python analysis/targets.py`: results/targets.csv -> figures/targets.{png,pdf} (LoRA, Table 5)
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures
from loralab.studies.arms import (
    comparison_row,
    interior,
    paired_difference,
    record_values,
    select_columns,
    shared,
    split_arms,
)
from loralab.studies.questions import Question, gain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

SCORES = ["validation/loss", "validation/accuracy", "test/loss", "test/accuracy"]
AXES = ["seed", "task", "lora.init", "lora.ratio", "lora.scaling", "lora.rank_pattern", "optim.lr", *captions.SETTING]
KEPT = ["hash", "stage", *AXES, "status", *SCORES, "adapter", "seconds", "commit", "diff"]
ORDER = ("q", "k", "v", "o", "q,k", "q,v", "q,k,v,o", "mlp", "all")
BASE = "q,v"  # the targets of most of the paper's experiments
METRICS = {"test/accuracy": ("test accuracy, points", 100), "test/loss": ("test loss", 1)}
PAPER = {
    "q,k,v,o": ("q, k, v and o", "MNLI 91.0 -> 91.7", 0.007),
    "q,v": ("q and v", "MNLI 91.0 -> 91.3", 0.003),
}


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run; adapter: trained parameters, without the head's."""
    trainable, head = (np.array(record_values(tables, "parameters", name)) for name in ("trainable", "head"))
    return select_columns(tables._replace(runs=tables.runs.assign(adapter=trainable - head)), KEPT)


def sets(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The arms by their targets, in the order of the paper's table."""
    found = split_arms(frame, ["lora.targets"])
    return {targets: found[targets] for targets in ORDER if targets in found}


def ranks(own: pd.DataFrame) -> str:
    """`r = 40`, `r = 5, mlp 4`."""
    pattern = own["lora.rank_pattern"].iloc[0]
    rest = f", {pattern.replace(':', ' ')}" if isinstance(pattern, str) else ""
    return f"r = {own['lora.rank'].iloc[0]:g}{rest}"


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    arms = sets(frame)
    places = np.arange(len(arms))[::-1]  # the first at the top
    figure, axes = plt.subplots(1, 2, figsize=(plotting.DOUBLE * 0.75, 0.21 * len(arms) + 0.6), sharey=True)
    for ax, colour, (metric, (title, scale)) in zip(axes, plotting.COLOURS, METRICS.items(), strict=False):
        found = [paired_difference(own, arms[BASE], metric) for own in arms.values()]
        middle, low, high = (scale * np.array([getattr(f, end) for f in found]) for end in ("estimate", "low", "high"))
        ax.axvline(0, color="0.6", lw=0.6, ls=":")
        ax.errorbar(middle, places, xerr=np.clip([middle - low, high - middle], 0, None), fmt="o", color=colour, lw=0.9)
        ax.set_xlabel(f"{title}: difference from {BASE.replace(',', ', ')}")
        ax.set_ylim(-0.6, len(arms) - 0.4)
    axes[0].set_yticks(places, [f"{targets.replace(',', ', ')}  ({ranks(own)})" for targets, own in arms.items()])
    return figure


def caption(frame: pd.DataFrame) -> str:
    confirm, grid = (frame[frame["stage"] == stage] for stage in ("confirm", "grid"))
    trials = grid.groupby("lora.targets").size().unique()
    budget = " or ".join(f"{n:,.0f}" for n in sorted(frame["adapter"].dropna().unique()))
    return (
        f"{shared(frame)}, LoRA (λ = 1), init {'/'.join(frame['lora.init'].unique())}, scaling 1. Adapters of {budget} "
        f"parameters each; rates selected by validation loss ({' or '.join(map(str, trials))} runs an arm, "
        f"{captions.seeds(grid)}). Fresh seeds (n = {confirm['seed'].nunique()}), last step; bars: 95% interval of the "
        f"difference, paired by seed (Student t), unadjusted for their number. {captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per set of targets: its size, its selected rate, its fresh scores, and its differences from q and v."""
    arms = sets(frame)
    rows = []
    for targets, own in arms.items():
        size = {"targets": targets, "rank": ranks(own), "adapter's parameters": f"{own['adapter'].iloc[0]:,.0f}"}
        rows.append({**size, **comparison_row(own, arms[BASE]), "interior": interior(own)})
    return pd.DataFrame(rows)


def questions(frame: pd.DataFrame) -> list[Question]:
    rows = frame[frame["stage"] == "confirm"]
    claims = [
        gain(rows, targets, "q", arm="lora.targets", by=["task"], text=words, paper=paper, number=number)
        for targets, (words, paper, number) in PAPER.items()
    ]
    text = f"does a budget spread over more maps beat all of it on q ({captions.tasks(frame)}, lr_A tuned for each)?"
    return [Question(text, "LoRA, Table 5", "points", claims)]


if __name__ == "__main__":
    figures.main(__file__)
