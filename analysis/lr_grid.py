"""The study `lr_grid`: accuracy and loss over the plane (lr_A, lr_B), a row of panels for each task and init.

`python analysis/lr_grid.py`: results/lr_grid.csv -> figures/lr_grid.{png,pdf} (LoRA+, Figs 3, 8, 10-13, 17)
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures
from loralab.studies.claims import Claim
from loralab.studies.stats import paired, whole_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from loralab.studies.tables import Tables

PANELS = {
    "validation/accuracy": "validation accuracy",
    "test/accuracy": "test accuracy",
    "train/loss": "training loss",
    "validation/loss": "validation loss",
}
AXES = ["seed", "task", "lora.init", "optim.lr", "lora.ratio", *captions.SETTING]
KEPT = ["hash", "stage", *AXES, "status", *PANELS, "seconds", "commit", "diff"]
PLANE = ["task", "lora.init", "lora.rank"]  # one heatmap each
NEARLY_EQUAL = (1.0, 1.25)  # the paper counts these ratios as equal rates
CLOSE = 0.01  # "within 1% of the best": accuracy; for a loss, 1% of it


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run."""
    return tables.runs[KEPT]


def cells(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per cell: the means over its seeds, NaN if one of them diverged."""
    by = [*PLANE, "optim.lr", "lora.ratio"]
    grouped = frame.groupby(by, sort=True)
    found = pd.DataFrame({metric: grouped[metric].agg(whole_mean) for metric in PANELS})
    found = found.assign(error=grouped["validation/loss"].sem()).reset_index()
    found["lr_B"] = (found["optim.lr"] * found["lora.ratio"]).map(lambda lr: float(f"{lr:.6g}"))
    return found


def best(of: pd.DataFrame, metric: str, *, equal: bool = False) -> pd.Series:
    """The best cell by a metric, or the best cell with nearly equal rates."""
    if equal:
        of = of[of["lora.ratio"].between(*NEARLY_EQUAL)]
    at = of[metric].argmin() if metric.endswith("loss") else of[metric].argmax()
    return of.iloc[int(at)]


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    found = cells(frame)
    groups = list(found.groupby(PLANE))
    figure, axes = plt.subplots(
        len(groups), len(PANELS), figsize=(plotting.DOUBLE, 1.4 * len(groups) + 0.35), squeeze=False
    )
    for row, (plane, of) in enumerate(groups):
        for column, (metric, title) in enumerate(PANELS.items()):
            ax = axes[row][column]
            _heatmap(ax, of, metric)
            if row == 0:
                ax.set_title(title)
            if row == len(groups) - 1:
                ax.set_xlabel("lr$_A$")
            else:
                ax.tick_params(labelbottom=False)
            if column:
                ax.tick_params(labelleft=False)
            else:
                ax.set_ylabel(f"{_named(frame, plane)}\nlr$_B$")
    return figure


def _heatmap(ax: "Axes", of: pd.DataFrame, metric: str) -> None:
    """One cell per pair; star: the best, ring: the best with nearly equal rates, dots: within 1% of the best."""
    from matplotlib.patches import Rectangle

    lower = metric.endswith("loss")
    table = of.pivot_table(index="lr_B", columns="optim.lr", values=metric, dropna=False)
    values = table.to_numpy(dtype=float)
    low, high = np.nanmin(values), np.nanmax(values)
    ends = (low, min(high, 1.5 * low)) if lower else (max(low, high - 0.12), high)  # resolves the good region
    colours = "viridis_r" if lower else "viridis"
    image = ax.imshow(values, cmap=colours, vmin=ends[0], vmax=ends[1], origin="lower", aspect="auto")
    plotting.label_powers(ax.xaxis, table.columns, places=range(values.shape[1]))
    plotting.label_powers(ax.yaxis, table.index, places=range(values.shape[0]))
    ax.tick_params(axis="x", rotation=60, length=1.5, labelsize=5)
    ax.tick_params(axis="y", length=1.5, labelsize=5)

    def places(some: pd.DataFrame) -> tuple["NDArray[np.int64]", "NDArray[np.int64]"]:
        lr_A, lr_B = (pd.Index(some[name].astype(float)) for name in ("optim.lr", "lr_B"))
        return table.columns.get_indexer(lr_A), table.index.get_indexer(lr_B)

    for x, y in zip(*places(of[of[metric].isna()]), strict=True):
        ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, color="#b3b3b3"))  # diverged; untried cells are blank
    ax.plot(*places(of[of["lora.ratio"] == 1].sort_values("optim.lr")), color="white", lw=0.7, ls=":")
    top, equal = (best(of, metric, equal=each).to_frame().T for each in (False, True))
    near = of[metric] <= low * (1 + CLOSE) if lower else of[metric] >= high - CLOSE
    ax.scatter(*places(of[near]), s=4, color="black", lw=0)
    ax.scatter(*places(top), s=42, marker="*", color="#D55E00", edgecolor="white", lw=0.5, zorder=3)
    ax.scatter(*places(equal), s=34, marker="o", facecolor="none", edgecolor="#D55E00", lw=1.1, zorder=3)
    ax.spines[:].set_visible(False)
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.08, pad=0.03, extend="max" if lower else "min")
    bar.ax.tick_params(labelsize=5, length=1.5)
    bar.outline.set_visible(False)


def caption(frame: pd.DataFrame) -> str:
    return (
        f"{captions.setting(frame)}; a cell is the mean of {captions.seeds(frame)}. Star: best cell; ring: best with "
        "ratio in [1, 1.25]; black dots: within a point (accuracy) or 1% (loss) of the best; dotted: equal rates; "
        "grey: a seed diverged. Colours end 12 points below the best accuracy and at 1.5 times the lowest loss. "
        f"{captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """For every heatmap one row for the best cell by validation loss, and one for the best with nearly equal rates."""
    rows = []
    for (task, init, rank), of in cells(frame).groupby(PLANE):
        for name, cell in (("best", best(of, "validation/loss")), ("equal", best(of, "validation/loss", equal=True))):
            rows.append(
                {
                    "task": task,
                    "init": init,
                    "rank": rank,
                    "cell": name,
                    "lr_A": cell["optim.lr"],
                    "lr_B": cell["lr_B"],
                    "ratio": cell["lora.ratio"],
                    **{metric: round(cell[metric], 4) for metric in PANELS},
                    "interior": interior(of, cell),
                }
            )
    return pd.DataFrame(rows)


def interior(of: pd.DataFrame, cell: pd.Series) -> bool:
    """Whether a cell, or a cell within a standard error of it, is inside both learning-rate axes."""

    def inside(each: pd.Series) -> bool:
        return all(of[axis].min() < each[axis] < of[axis].max() for axis in ("optim.lr", "lr_B"))

    ties = of[of["validation/loss"] <= cell["validation/loss"] + np.nan_to_num(cell["error"])]
    return any(inside(each) for _, each in ties.iterrows())


def claims(frame: pd.DataFrame) -> list[Claim]:
    """Fig 3, on the runs that selected: test accuracy of the best pair minus that of the best with nearly equal rates.

    Both are selected by mean validation loss on the same seeds, so no test is valid; `ratio` uses fresh seeds.
    """
    found = []
    for plane, of in frame.groupby(PLANE):
        table = cells(of)
        top, equal = (best(table, "validation/loss", equal=each) for each in (False, True))
        where = f"{_named(frame, plane)}; the seeds that chose"
        text = f"the best pair of rates beats the best of nearly equal rates ({where})"
        some, other = (_scores(of, cell) for cell in (top, equal))
        found.append(
            Claim(
                "lr_grid", "LoRA+, Fig 3", text, "1 to 2 points", replace(paired(some, other), p=np.nan), 0.0, "points"
            )
        )
    return found


def _scores(rows: pd.DataFrame, cell: pd.Series) -> "NDArray[np.float64]":
    """The test accuracies of a cell, by seed."""
    own = rows[(rows["optim.lr"] == cell["optim.lr"]) & (rows["lora.ratio"] == cell["lora.ratio"])]
    return np.asarray(own.sort_values("seed")["test/accuracy"], dtype=float)


def _named(frame: pd.DataFrame, plane: Any) -> str:
    """`TREC, init A`, and the rank if it varies."""
    task, init, rank = plane
    varies = frame["lora.rank"].nunique() > 1
    return f"{captions.NAMES.get(task, task)}, init {init}{f', rank {rank:g}' if varies else ''}"


if __name__ == "__main__":
    figures.main(__file__)
