"""The study `first`: validation loss over lr_A and the ratio, as a heatmap: the smallest example of an analysis.

`python analysis/first.py`: analysis/results/first.csv -> analysis/figures/first.{png,pdf}
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures
from loralab.studies.stats import whole_mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

METRIC = "validation/loss"
AXES = ["seed", "task", "optim.lr", "lora.ratio", *captions.SETTING]
KEPT = ["hash", "stage", *AXES, "status", METRIC, "validation/accuracy", "test/accuracy", "seconds", "commit", "diff"]
SCORES = [METRIC]  # what the figure needs: a task of other metrics has its own beside it


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run: its axes, its scores, and the version of the code."""
    runs = tables.runs
    all_scores = [name for name in map(str, runs) if name.startswith(("validation/", "test/"))]
    scores = [name for name in all_scores if not name.endswith("/loss")]
    first, last = KEPT.index(METRIC) + 1, KEPT.index("seconds")
    return runs[[*KEPT[:first], *scores, *KEPT[last:]]]


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per ratio, one column per rate: the mean over the seeds; empty if one of them diverged."""
    means = frame.groupby(["lora.ratio", "optim.lr"])[METRIC].agg(whole_mean)
    return means.unstack("optim.lr")


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    table = summary(frame)
    cells = table.to_numpy(dtype=float)
    figure, axes = plt.subplots(figsize=(plotting.SINGLE, 2.4))
    image = axes.imshow(cells, cmap="viridis_r", origin="lower", aspect="auto")
    plotting.label_powers(axes.xaxis, table.columns, places=range(cells.shape[1]))
    plotting.label_powers(axes.yaxis, table.index, places=range(cells.shape[0]))
    axes.set_xlabel("lr$_A$")
    axes.set_ylabel("ratio λ = lr$_B$ / lr$_A$")
    middle = (np.nanmin(cells) + np.nanmax(cells)) / 2
    for (row, column), value in np.ndenumerate(cells):
        text = "diverged" if np.isnan(value) else f"{value:.3f}"
        axes.text(column, row, text, ha="center", va="center", color="white" if value > middle else "black")
    axes.set_title(captions.tasks(frame))
    figure.colorbar(image, label="validation loss")
    return figure


def caption(frame: pd.DataFrame) -> str:
    what = f"{captions.tasks(frame)}, {captions.setting(frame)}"
    return f"{what}; mean of {captions.seeds(frame)}, no interval. {captions.provenance(frame)}."


if __name__ == "__main__":
    figures.main(__file__)
