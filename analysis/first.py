"""The study `first`: validation loss over lr_A and the ratio, as a heatmap. Reads the CSV alone.

`python analysis/first.py`: analysis/results/first.csv -> analysis/figures/first.{png,pdf}
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from loralab.results import Tables

HERE = Path(__file__).resolve().parent
METRIC = "validation/loss"
AXES = ["optim.lr", "lora.ratio"]
KEPT = ["hash", *AXES, "seed", "status", METRIC, "validation/accuracy", "test/accuracy", "seconds", "commit", "diff"]


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row a run: its axes, its scores, and the code that trained it."""
    return tables.runs[[name for name in KEPT if name in tables.runs]]


def _mean(losses: pd.Series) -> float:
    """Over the seeds; none where one of them diverged: what is left would flatter the cell."""
    return float(losses.mean(skipna=False))


def draw(runs: pd.DataFrame) -> "Figure":
    """A cell is the mean over its seeds; a cell without a finished run raises ValueError."""
    import matplotlib.pyplot as plt

    undone = runs[~runs["status"].isin(["success", "diverged"])]
    if len(undone):
        raise ValueError(f"not done: {undone[[*AXES, 'seed', 'status']].to_dict('records')}")
    names = [*AXES, "seed"]
    wanted = pd.MultiIndex.from_product([runs[name].unique() for name in names], names=names)
    absent = wanted.difference(pd.MultiIndex.from_frame(runs[names]))
    if len(absent):
        raise ValueError(f"no row for {absent.to_frame().to_dict('records')}")
    table = runs.pivot_table(index="lora.ratio", columns="optim.lr", values=METRIC, aggfunc=_mean, dropna=False)
    cells = table.to_numpy(dtype=float)
    figure, axes = plt.subplots(figsize=(4.2, 2.9), layout="constrained")
    image = axes.imshow(cells, cmap="viridis_r", origin="lower", aspect="auto")
    axes.set_xticks(range(cells.shape[1]), [f"{lr:g}" for lr in table.columns])
    axes.set_yticks(range(cells.shape[0]), [f"{ratio:g}" for ratio in table.index])
    axes.set_xlabel("lr$_A$")
    axes.set_ylabel("ratio λ = lr$_B$ / lr$_A$")
    middle = (np.nanmin(cells) + np.nanmax(cells)) / 2
    for (row, column), value in np.ndenumerate(cells):
        text = "diverged" if np.isnan(value) else f"{value:.3f}"
        axes.text(column, row, text, ha="center", va="center", color="white" if value > middle else "black")
    figure.colorbar(image, label="validation loss")
    axes.set_title(f"MiniLM, Rotten Tomatoes, 100 steps, mean of {runs['seed'].nunique()} seeds", fontsize=9)
    return figure


def main() -> None:
    """Draws the figure from the committed CSV."""
    figure = draw(pd.read_csv(HERE / "results" / "first.csv"))
    (HERE / "figures").mkdir(exist_ok=True)
    for kind in ("png", "pdf"):
        figure.savefig(HERE / "figures" / f"first.{kind}", dpi=200)


if __name__ == "__main__":
    main()
