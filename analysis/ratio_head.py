"""The study `ratio_head`: accuracy and loss against λ, with the head's rate pinned or equal to lr_A.

`python analysis/ratio_head.py`: results/ratio_head.csv -> figures/ratio_head.{png,pdf}. A control of `ratio`.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures
from loralab.studies.arms import interior
from loralab.studies.questions import Question
from loralab.studies.ratios import arm, difference, forests, ratio_gains, ratios
from loralab.studies.stats import whole_mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

SCORES = ["validation/loss", "test/loss", "test/accuracy"]
AXES = ["seed", "task", "lora.init", "optim.head_lr", "lora.ratio", "optim.lr", *captions.SETTING]
KEPT = ["hash", "stage", *AXES, "status", *SCORES, "seconds", "commit", "diff"]
RIDING = "${optim.lr}"  # as in the study's file


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run."""
    return tables.runs[KEPT]


def by_head(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """How the head is trained, in words, with its rows."""
    for rate, rows in sorted(frame.groupby(frame["optim.head_lr"].astype(str)), key=lambda pair: pair[0] == RIDING):
        yield "head at lr_A" if rate == RIDING else f"head at {plotting.short(float(rate))}", rows


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    heads = {label.replace("lr_A", "lr$_A$"): rows for label, rows in by_head(frame)}
    figure, axes = plt.subplots(1, 2, figsize=(plotting.DOUBLE, 0.4 * len(ratios(frame)) + 0.9))
    forests(axes, heads)
    return figure


def caption(frame: pd.DataFrame) -> str:
    confirm = frame[frame["stage"] == "confirm"]
    return (
        f"{captions.tasks(frame)}, {captions.setting(frame)}, init {'/'.join(frame['lora.init'].unique())}; lr_A tuned "
        f"for each λ and head. Differences from λ = 1 with the same head on {captions.seeds(confirm)}, paired, 95% "
        f"(Student t). {captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per head and ratio: the selected rate, fresh scores, and the difference from λ = 1."""
    rows = []
    for label, of in by_head(frame):
        for ratio in ratios(of):
            runs, found = arm(of, ratio), difference(of, ratio, "test/accuracy")
            rows.append(
                {
                    "head": label,
                    "ratio": ratio,
                    "lr_A": runs["optim.lr"].iloc[0],
                    "test accuracy": round(whole_mean(runs["test/accuracy"]), 4),
                    "test loss": round(whole_mean(runs["test/loss"]), 4),
                    "difference, points": f"{100 * found.estimate:+.2f}",
                    "by seed": f"[{100 * found.low:.2f}, {100 * found.high:.2f}]",
                    "interior": interior(of, ratio),
                }
            )
    return pd.DataFrame(rows)


def row_keys(frame: pd.DataFrame) -> pd.DataFrame:
    named = pd.concat([rows.assign(head=label, ratio=rows["lora.ratio"]) for label, rows in by_head(frame)])
    return named.loc[frame.index, ["head", "ratio"]]


def questions(frame: pd.DataFrame) -> list[Question]:
    """About the half where the head's rate follows lr_A; `ratio` has the other half."""
    gains = ratio_gains(dict(by_head(frame))["head at lr_A"], ["task"])
    text = f"does a λ above 1 gain accuracy where the head's rate is lr_A ({captions.tasks(frame)}, init A)?"
    return [Question(text, "LoRA+, abstract", "points", gains)]


if __name__ == "__main__":
    figures.main(__file__)
