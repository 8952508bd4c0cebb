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
from loralab.studies.intervals import PAPER as PAPERS
from loralab.studies.intervals import forest
from loralab.studies.questions import Question, gain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

SCORES = ["validation/loss", "validation/accuracy", "test/loss", "test/accuracy"]
AXES = ["seed", "task", "lora.init", "lora.ratio", "lora.scaling", "lora.rank_pattern", "optim.lr", *captions.SETTING]
KEPT = ["hash", "stage", *AXES, "status", *SCORES, "adapter", "seconds", "commit", "diff"]
ORDER = ("q", "k", "v", "o", "q,k", "q,v", "q,k,v,o", "mlp", "all")
BASE = "q,v"  # the targets of most of the paper's experiments
METRICS: dict[str, tuple[str, dict[str, float]]] = {  # the axis, and the bands of the forest
    "test/accuracy": ("accuracy over q, v (points)", {"scale": 100, "margin": 0.005}),
    "test/loss": ("test loss over q, v (nats)", {}),
}
TABLE_5 = {  # of LoRA: GPT-3's accuracy on WikiSQL and MNLI with 18M trained parameters
    "q": (70.4, 91.0), "k": (70.0, 90.8), "v": (73.0, 91.0), "o": (73.2, 91.3), "q,k": (71.4, 91.3),
    "q,v": (73.7, 91.3), "q,k,v,o": (73.7, 91.7),
}  # fmt: skip
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

    gains = {name: paired_difference(own, sets(frame)[BASE], "test/accuracy") for name, own in sets(frame).items()}
    arms = {name: sets(frame)[name] for name in sorted(gains, key=lambda name: -gains[name].estimate)}
    rows = [f"{targets.replace(',', ', ')}  ({ranks(own)})" for targets, own in arms.items()]
    figure, axes = plt.subplots(1, 2, figsize=(plotting.DOUBLE, 0.25 * len(arms) + 1.1))
    for ax, (metric, (title, bands)) in zip(axes, METRICS.items(), strict=True):
        found = [paired_difference(own, arms[BASE], metric) for own in arms.values()]
        forest(ax, rows, {"here": found}, **bands)
        ax.set_xlabel(title)
    for (task, mark), at in zip((("WikiSQL", "s"), ("MNLI", "^")), (0, 1), strict=True):
        there = {place: TABLE_5[targets][at] for place, targets in enumerate(arms) if targets in TABLE_5}
        theirs = [points - TABLE_5[BASE][at] for points in there.values()]
        axes[0].plot(theirs, list(there), mark, color=PAPERS, mfc="none", label=f"GPT-3, {task} (LoRA, Table 5)")
    axes[0].set_title("right: better than q, v")
    axes[1].set_title("left: better than q, v")
    axes[1].set_yticklabels([])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=4)
    return figure


def caption(frame: pd.DataFrame) -> str:
    confirm, grid = (frame[frame["stage"] == stage] for stage in ("confirm", "grid"))
    trials = " or ".join(map(str, grid.groupby("lora.targets").size().unique()))
    budget = " or ".join(f"{n:,.0f}" for n in sorted(frame["adapter"].dropna().unique()))
    return (
        f"{shared(frame)}, LoRA (λ = 1), init {'/'.join(frame['lora.init'].unique())}, scaling 1. Adapters of {budget} "
        f"parameters each, the best of {trials} runs. Differences on {confirm['seed'].nunique()} fresh seeds, paired, "
        f"95% (Student t). {captions.provenance(frame)}."
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
