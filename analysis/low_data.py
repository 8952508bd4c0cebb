"""The study `low_data`: accuracy against the number of training examples, for the head alone, LoRA, LoRA+, and full.

`python analysis/low_data.py`: results/low_data.csv -> figures/low_data.{png,pdf} (LoRA, Table 16)
"""

from typing import TYPE_CHECKING

import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures
from loralab.studies.arms import (
    comparison_row,
    interior,
    level,
    paired_difference,
    record_values,
    select_columns,
    shared,
    split_arms,
)
from loralab.studies.intervals import LINES, dots, forest
from loralab.studies.questions import Question, gain
from loralab.studies.stats import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

SCORES = ["validation/loss", "validation/accuracy", "test/loss", "test/accuracy"]
AXES = ["seed", "task", "task.train_rows", "method", "lora.init", "lora.ratio", "optim.head_lr", "optim.lr"]
AXES += captions.SETTING
KEPT = ["hash", "stage", *AXES, "status", *SCORES, "examples", "seconds", "commit", "diff"]
METHODS = {"head": "head alone", "lora": "LoRA", "lora_plus": "LoRA+", "full": "full fine-tuning"}
BASE = "lora"
AGAINST = ("lora_plus", "full")  # the methods drawn against LoRA; the head alone would dominate the scale

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


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    arms = arms_of(frame)
    sizes = sorted(frame["examples"].unique())
    figure = plt.figure(figsize=(plotting.DOUBLE, 3.1))
    grid = figure.add_gridspec(2, 2, width_ratios=(1, 1.4), height_ratios=(1, max(1, len(sizes) - 1)))
    left, first, rest = figure.add_subplot(grid[:, 0]), figure.add_subplot(grid[0, 1]), figure.add_subplot(grid[1, 1])
    for at, (method, colour) in enumerate(zip((BASE, *AGAINST), ("black", *LINES), strict=False)):
        line = over_sizes(arms, method)
        places = [size * 2 ** (0.1 * (at - 1)) for size in line]
        dots(left, places, [level(own, "test/accuracy") for own in line.values()], colour, METHODS[method], join="-")
    left.set_xscale("log")
    plotting.label_powers(left.xaxis, sizes)
    left.set(xlabel="training examples", ylabel="test accuracy", title="a) each method")
    left.legend(loc="lower right")
    for ax, some in ((first, sizes[:1]), (rest, sizes[1:])):
        gains = {METHODS[method]: [_gain(arms, size, method) for size in some] for method in AGAINST}
        forest(ax, [f"{size:,.0f} examples" for size in some], gains, scale=100, margin=0.005)
    first.set_title(f"b) over {METHODS[BASE]} (points; right is better)")
    rest.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)
    return figure


def _gain(arms: Arms, size: float, method: str) -> Interval:
    return paired_difference(arms[size, method], arms[size, BASE], "test/accuracy")


def caption(frame: pd.DataFrame) -> str:
    confirm, grid = (frame[frame["stage"] == stage] for stage in ("confirm", "grid"))
    trials = " or ".join(map(str, grid.groupby(["examples", "method"]).size().unique()))
    ratio = " or ".join(f"{ratio:g}" for ratio in frame.loc[frame["method"] == "lora_plus", "lora.ratio"].unique())
    head = [level(own, "test/accuracy").estimate for own in over_sizes(arms_of(frame), "head").values()]
    return (
        f"{shared(frame)} at each size; LoRA+: λ = {ratio}; the best of {trials} runs each, on "
        f"{confirm['seed'].nunique()} fresh seeds, last step; 95% (Student t), b: paired. The head alone: accuracy "
        f"{min(head):.2f} to {max(head):.2f}. {captions.provenance(frame)}."
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


def row_keys(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[["examples"]].assign(method=frame["method"].map(METHODS))


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
