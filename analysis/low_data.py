"""The study `low_data`: accuracy against the number of training examples, for the head alone, LoRA, LoRA+, and full.

`python analysis/low_data.py`: results/low_data.csv -> figures/low_data.{png,pdf} (LoRA, Table 16)
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures
from loralab.studies.arms import (
    comparison_row,
    confirm_runs,
    interior,
    paired_difference,
    record_values,
    select_columns,
    shared,
    split_arms,
)
from loralab.studies.questions import Question, gain
from loralab.studies.stats import Interval, mean_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

SCORES = ["validation/loss", "validation/accuracy", "test/loss", "test/accuracy"]
AXES = ["seed", "task", "task.train_rows", "method", "lora.init", "lora.ratio", "optim.head_lr", "optim.lr"]
AXES += captions.SETTING
KEPT = ["hash", "stage", *AXES, "status", *SCORES, "examples", "seconds", "commit", "diff"]
METHODS = {"head": "head alone", "lora": "LoRA", "lora_plus": "LoRA+", "full": "full fine-tuning"}
BASE = "lora"
AGAINST = ("lora_plus", "full")  # the methods drawn against LoRA; the head alone would dominate the scale
METRICS = {"test/accuracy": "test accuracy", "test/loss": "test loss"}

Arms = dict[tuple[float, str], pd.DataFrame]  # by examples and method


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run; examples: the number of training examples, also if all are used (task.train_rows is null)."""
    return select_columns(
        tables._replace(runs=tables.runs.assign(examples=record_values(tables, "rows", "train"))), KEPT
    )


def arms_of(frame: pd.DataFrame) -> Arms:
    return split_arms(frame.sort_values("examples"), ["examples", "method"])


def over_sizes(arms: Arms, method: str) -> dict[float, pd.DataFrame]:
    """The arms of a method, by the number of examples."""
    return {examples: own for (examples, by), own in arms.items() if by == method}


def level(own: pd.DataFrame, metric: str) -> Interval:
    """An arm's mean score over the fresh seeds; NaN if a run diverged."""
    scores = confirm_runs(own)[metric]
    if scores.isna().any():
        return Interval(np.nan, np.nan, np.nan, len(scores), np.nan)
    return mean_interval(scores)


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    arms = arms_of(frame)
    figure, axes = plt.subplots(1, 3, figsize=(plotting.DOUBLE, 2.1))
    for at, (method, label) in enumerate(METHODS.items()):
        line = over_sizes(arms, method)
        places = [size * 2 ** (0.1 * (at - 1.5)) for size in line]
        for ax, metric in zip(axes, METRICS, strict=False):
            _line(ax, places, [level(own, metric) for own in line.values()], label, at)
        if method in AGAINST:
            gains = [paired_difference(own, arms[size, BASE], "test/accuracy") for size, own in line.items()]
            _line(axes[2], places, gains, label, at, scale=100)
    axes[2].axhline(0, color=plotting.COLOURS[list(METHODS).index(BASE)], lw=0.6, ls=":")
    for ax, label in zip(axes, (*METRICS.values(), f"points over {METHODS[BASE]}"), strict=True):
        ax.set_xscale("log")
        plotting.label_powers(ax.xaxis, sorted(frame["examples"].unique()))
        ax.set_xlabel("training examples")
        ax.set_ylabel(f"{label}, fresh seeds")
    axes[0].legend()
    return figure


def _line(ax: "Axes", places: list[float], found: list[Interval], label: str, at: int, scale: float = 1) -> None:
    middle, low, high = (scale * np.array([getattr(f, end) for f in found]) for end in ("estimate", "low", "high"))
    ends = np.clip([middle - low, high - middle], 0, None)
    ax.errorbar(places, middle, yerr=ends, fmt="o-", color=plotting.COLOURS[at], lw=0.9, elinewidth=0.8, label=label)


def caption(frame: pd.DataFrame) -> str:
    confirm, grid = (frame[frame["stage"] == stage] for stage in ("confirm", "grid"))
    trials = grid.groupby(["examples", "method"]).size().unique()
    ratio = " or ".join(f"{ratio:g}" for ratio in frame.loc[frame["method"] == "lora_plus", "lora.ratio"].unique())
    return (
        f"{shared(frame)} at each size; LoRA+: λ = {ratio}; the smaller sets are parts of the larger ones, the same in "
        f"all runs. Rates selected for each point by validation loss ({' or '.join(map(str, trials))} runs, "
        f"{captions.seeds(grid)}). Fresh seeds (n = {confirm['seed'].nunique()}), last step; bars: 95% intervals over "
        "seeds (Student t), right: of the difference from LoRA, paired by seed; all unadjusted for their number. "
        f"{captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per size and method: its selected rate, its fresh scores, and its differences from LoRA."""
    arms = arms_of(frame)
    rows = []
    for examples in sorted(frame["examples"].unique()):
        for method, label in METHODS.items():
            own = arms[examples, method]
            scores = comparison_row(own, arms[examples, BASE])
            rows.append({"examples": examples, "method": label, **scores, "interior": interior(own)})
    return pd.DataFrame(rows)


def questions(frame: pd.DataFrame) -> list[Question]:
    """The smallest set stands alone: its runs spread five times as wide, and one error variance is pooled."""
    confirm, sizes = frame[frame["stage"] == "confirm"], sorted(frame["examples"].unique())
    large = f"{sizes[min(1, len(sizes) - 1)]:,g} to {sizes[-1]:,g} examples"
    parts = {large: confirm[confirm["examples"] >= sizes[min(1, len(sizes) - 1)]]}
    parts |= {f"{sizes[0]:,g} examples": confirm[confirm["examples"] == sizes[0]]} if len(sizes) > 1 else {}

    def asked(text: str, source: str, own: str, base: str, paper: str, number: float | None) -> Question:
        claims = [
            gain(rows, own, base, arm="method", by=["examples"], text=size, paper=paper, number=number)
            for size, rows in parts.items()
        ]
        return Question(f"{text} with few examples ({captions.tasks(frame)})?", source, "points", claims)

    return [
        asked("does LoRA beat full fine-tuning", "LoRA, Table 16", "lora", "full", "better with 100", None),
        asked("does LoRA+ beat LoRA", "LoRA+, abstract", "lora_plus", "lora", "1 to 2%", 0.01),
    ]


if __name__ == "__main__":
    figures.main(__file__)
