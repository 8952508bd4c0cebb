"""The study `lr_grid`: validation loss over the plane (lr_A, lr_B), a panel for each task and init.

`python analysis/lr_grid.py`: analysis/results/lr_grid.csv -> analysis/figures/lr_grid.{png,pdf}
"""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from loralab.results import Tables

HERE = Path(__file__).resolve().parent
AXES = ["seed", "task", "lora.init", "optim.lr", "lora.ratio"]
SCORES = ["validation/accuracy", "test/accuracy", "train/loss", "validation/loss"]


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row a run."""
    return tables.runs[["hash", "stage", *AXES, "status", *SCORES, "seconds", "commit", "diff"]]


def draw(runs: pd.DataFrame) -> "Figure":
    """A cell is the mean over its seeds, and empty where one of them diverged."""
    import matplotlib.pyplot as plt

    runs = runs.assign(rate=(runs["optim.lr"] * runs["lora.ratio"]).round(9))
    groups = list(runs.groupby(["task", "lora.init"]))
    figure, axes = plt.subplots(1, len(groups), figsize=(2.6 * len(groups), 2.6), squeeze=False, layout="constrained")
    for ax, ((task, init), of) in zip(axes[0], groups, strict=True):
        cells = of.pivot_table(index="rate", columns="optim.lr", values="validation/loss", aggfunc="mean")
        ax.imshow(cells.to_numpy(), cmap="viridis_r", origin="lower", aspect="auto")
        ax.set_xticks(range(cells.shape[1]), [f"{lr:g}" for lr in cells.columns], rotation=60)
        ax.set_yticks(range(cells.shape[0]), [f"{lr:g}" for lr in cells.index])
        ax.set_title(f"{task}, init {init}")
        ax.set_xlabel("lr$_A$")
        ax.set_ylabel("lr$_B$")
    return figure


def main() -> None:
    """Draws the figure from the committed CSV."""
    draw(pd.read_csv(HERE / "results" / "lr_grid.csv")).savefig(HERE / "figures" / "lr_grid.png", dpi=200)


if __name__ == "__main__":
    main()
