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
from loralab.studies.questions import Claim, Question
from loralab.studies.ratios import against_ratio, arm, lowest, ratio_gains, ratios, tuned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

SCORES = ["validation/loss", "validation/accuracy", "test/loss", "test/accuracy", "train/loss"]
AXES = ["seed", "task", "task.train_rows", "lora.init", "lora.ratio", "optim.lr", *captions.SETTING]
KEPT = ["hash", "stage", *AXES, "status", *SCORES, "seconds", "commit", "diff"]
PAPER = {"A": ("4 to 8", 2.0), "B": ("about 16", 4.0)}  # the best ratio and its doublings, by init
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


def questions(frame: pd.DataFrame) -> list[Question]:
    """The lowest loss only where settings are pooled: the seeds of one do not identify a parabola's minimum."""
    settings, where = ["task", "lora.init"], f"({captions.tasks(frame)})"
    gains = ratio_gains(frame, settings)
    asked = [Question(f"does a λ above 1 gain accuracy over λ = 1 {where}?", "LoRA+, abstract", "points", gains)]
    inits = {str(init): rows for init, rows in frame.groupby("lora.init")}
    if len(inits) > 1:
        best = [Claim("all settings", lowest(frame, settings), "4 to 16", 2.0)]
        best += [Claim(f"init {init}", lowest(rows, ["task"]), *PAPER[init]) for init, rows in inits.items()]
        text, source = f"at which λ is the test loss lowest {where}?", "LoRA+, Figs 6, 17, 18"
        asked.append(Question(text, source, "doublings", best))
    return asked


if __name__ == "__main__":
    figures.main(__file__)
