"""The study `ratio`: accuracy and loss against the ratio λ, with lr_A tuned in a window for each λ.

`python analysis/ratio.py`: results/ratio.csv -> figures/ratio.{png,pdf}. The losses in the windows select the rates
(stage grid); the comparisons use fresh seeds, on the test split (stage confirm).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures
from loralab.studies.arms import comparison_row, interior, select_columns
from loralab.studies.claims import Claim
from loralab.studies.pooled import Pooled, pooled_gain
from loralab.studies.questions import Question
from loralab.studies.ratios import against_ratio, arm, difference, optimum, ratios, tuned
from loralab.studies.ratios import best_ratio as chosen
from loralab.studies.stats import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

SCORES = ["validation/loss", "validation/accuracy", "test/loss", "test/accuracy", "train/loss"]
AXES = ["seed", "task", "task.train_rows", "lora.init", "lora.ratio", "optim.lr", *captions.SETTING]
KEPT = ["hash", "stage", *AXES, "status", *SCORES, "seconds", "commit", "diff"]
ADVICE = 16  # LoRA+'s fixed ratio
PAPER = {
    "A": "above 1: 4 to 8, so 2 to 3 doublings",
    "B": "above 1: about 16, so 4 doublings",
}  # the best ratio, by init
METRICS = {"test/accuracy": "test accuracy", "test/loss": "test loss"}


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run; runs on fresh seeds also record which test examples they got right."""
    return select_columns(tables, KEPT)


def settings_of(frame: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Each task and init with its rows."""
    for (task, init), rows in frame.groupby(["task", "lora.init"]):
        yield str(task), str(init), rows


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    tasks = sorted(frame["task"].unique())
    inits = sorted(frame["lora.init"].unique())
    wide = len(inits) + len(METRICS)
    figure, axes = plt.subplots(len(tasks), wide, figsize=(plotting.DOUBLE, 1.85 * len(tasks) + 0.3), squeeze=False)
    for row, task in enumerate(tasks):
        name = captions.NAMES.get(task, task)
        for column, init in enumerate(inits):
            rows = frame[(frame["task"] == task) & (frame["lora.init"] == init)]
            _windows(axes[row][column], rows)
            axes[row][column].set_title(f"{name}, init {init}")
        for column, (metric, title) in enumerate(METRICS.items(), start=len(inits)):
            ax = axes[row][column]
            for at, init in enumerate(inits):
                rows = frame[(frame["task"] == task) & (frame["lora.init"] == init)]
                against_ratio(ax, rows, metric, f"init {init}", at)
            ax.set_title(name)
            ax.set_xlabel("ratio λ = lr$_B$ / lr$_A$")
            ax.set_ylabel(title)
            if row == 0 and column == len(inits):
                ax.legend()
    lines = axes[0][0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside upper left", ncols=8, title="ratio λ", handlelength=1.2)
    return figure


def _windows(ax: "Axes", rows: pd.DataFrame) -> None:
    """Validation loss against lr_A, one line per ratio from light to dark; a dot on the best rate of each."""
    import matplotlib as mpl

    found = tuned(rows)
    for shade, (ratio, line) in zip(
        np.linspace(0.85, 0, found["lora.ratio"].nunique()), found.groupby("lora.ratio"), strict=True
    ):
        colour = mpl.colormaps["viridis"](shade)
        ax.plot(line["optim.lr"], line["validation/loss"], color=colour, label=f"{ratio:g}", lw=1)
        top = line.nsmallest(1, "validation/loss")
        ax.plot(top["optim.lr"], top["validation/loss"], "o", color=colour)
    ax.set_xscale("log")
    low = found["validation/loss"].min()
    ax.set_ylim(low - 0.01, min(found["validation/loss"].max(), low + 0.16) + 0.01)
    ax.set_xlabel("lr$_A$")
    ax.set_ylabel("validation loss")


def caption(frame: pd.DataFrame) -> str:
    confirm, grid = (frame[frame["stage"] == stage] for stage in ("confirm", "grid"))
    trials = grid.groupby(["task", "lora.init", "lora.ratio"]).size().unique()
    examples = "".join(f" on {int(rows):,} training examples" for rows in frame["task.train_rows"].dropna().unique())
    return (
        f"{captions.setting(frame)}{examples}. Left: mean validation loss of {captions.seeds(grid)} over each ratio's "
        f"own window of lr_A ({' or '.join(map(str, trials))} runs a ratio); dots: the selected rates. Right: "
        f"those on fresh seeds (n = {confirm['seed'].nunique()}), last step; bars: 95% interval of the difference from "
        f"λ = 1, paired by seed (Student t), unadjusted for their number. {captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per task, init and ratio: its selected rate, its fresh scores, and its differences from λ = 1."""
    rows = []
    for task, init, of in settings_of(frame):
        for ratio in ratios(of):
            scores = comparison_row(arm(of, ratio), arm(of, 1))
            rows.append({"task": task, "init": init, "ratio": ratio, **scores, "interior": interior(of, ratio)})
    return pd.DataFrame(rows)


def claims(frame: pd.DataFrame) -> list[Claim]:
    found = []
    for task, init, rows in settings_of(frame):
        where = f"{captions.NAMES.get(task, task)}, init {init}"
        advice = difference(rows, ADVICE, "test/accuracy")
        found.append(
            Claim(
                "ratio",
                "LoRA+, section 5",
                f"λ = {ADVICE} beats λ = 1 in accuracy ({where})",
                "1 to 2%",
                advice,
                0.0,
                "points",
            )
        )
        at = optimum(rows)
        lowest = Interval(at.at, at.low, at.high, len(arm(rows, 1)), at.p)
        text = f"a parabola in log λ through the arms' mean test losses is lowest above λ = 1 ({where})"
        found.append(Claim("ratio", "LoRA+, Figs 6, 17, 18", text, PAPER[init], lowest, 0.0, "doublings"))
        top, overall = chosen(rows, above=1), chosen(rows)
        note = "" if overall == top else f"; {overall:g} had the lowest validation loss of all"
        text = f"the best λ above 1, here {top:g}, beats λ = 1 by a point of accuracy or more ({where}{note})"
        better = difference(rows, top, "test/accuracy", null=0.01)
        found.append(Claim("ratio", "LoRA+, abstract", text, "1 to 2%", better, 0.01, "points"))
    return found


def questions(frame: pd.DataFrame) -> list[Question]:
    confirm = frame[frame["stage"] == "confirm"]

    def gain(ratio: float, metric: str) -> Pooled:
        return pooled_gain(confirm, ratio, 1, arm="lora.ratio", by=["task", "lora.init"], metric=metric)

    above = [ratio for ratio in ratios(frame) if ratio > 1]
    return [
        Question(
            "does a λ above 1 gain accuracy over λ = 1, with lr_A tuned for each?",
            "LoRA+, abstract",
            "1 to 2%",
            0.01,
            {f"λ = {ratio:g}": gain(ratio, "test/accuracy") for ratio in above},
            {f"λ = {ratio:g}": gain(ratio, "test/loss").effect for ratio in above},
        )
    ]


if __name__ == "__main__":
    figures.main(__file__)
