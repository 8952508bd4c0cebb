"""The study `lr_grid`: validation loss over the plane (lr_A, lr_B), a panel for each task and init.

`python analysis/lr_grid.py`: results/lr_grid.csv -> figures/lr_grid.{png,pdf} (LoRA+, Figs 3, 8, 10-13, 17)
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures
from loralab.studies.minima import vertex
from loralab.studies.questions import Claim, Question
from loralab.studies.stats import mean_interval, whole_mean
from loralab.studies.thinned_curves import curve_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from loralab.studies.tables import Tables

METRIC = "validation/loss"
SCORES = ["validation/accuracy", "test/accuracy", "train/loss", METRIC]
AXES = ["seed", "task", "lora.init", "optim.lr", "lora.ratio", *captions.SETTING]
KEPT = ["hash", "stage", *AXES, "status", *SCORES, "seconds", "commit", "diff"]
PLANE = ["task", "lora.init", "lora.rank"]  # one panel each
NEARLY_EQUAL = (1.0, 1.25)  # the paper counts these ratios as equal rates
RIDGE = (1.0, 16.0)  # the ratios whose tuned rates define the ridge; above 16 the grid ends before some of them
COLLAPSED = 0.1  # nats by which a pair of lower rates is better; five times the noise between seeds
LEVELS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # nats above the lowest loss; the noise between seeds is .008 to .019
CONTOUR = 0.05
MARK = "#D55E00"


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run, with its validation curve."""
    return tables.runs[[*KEPT, *curve_columns(tables.runs)]]


def cells(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per cell: the means over its seeds, NaN if one of them diverged, and whether its rates are too high."""
    by = [*PLANE, "optim.lr", "lora.ratio"]
    grouped = frame.groupby(by, sort=True)
    found = pd.DataFrame({metric: grouped[metric].agg(whole_mean) for metric in SCORES})
    found = found.assign(error=grouped[METRIC].sem()).reset_index()
    found["lr_B"] = (found["optim.lr"] * found["lora.ratio"]).map(lambda lr: float(f"{lr:.6g}"))
    planes = [_too_high(of) for _, of in found.groupby(PLANE)]
    return found.assign(too_high=pd.concat(planes))


def _too_high(of: pd.DataFrame) -> "pd.Series[bool]":
    """Whether a cell's runs diverged, or a cell of rates that are no higher is better by COLLAPSED."""
    lr_A, lr_B, loss = (of[name].to_numpy(dtype=float) for name in ("optim.lr", "lr_B", METRIC))
    lower = (lr_A[:, None] >= lr_A) & (lr_B[:, None] >= lr_B)
    best = np.where(lower & ~np.isnan(loss), loss, np.inf).min(axis=1)
    return pd.Series(np.isnan(loss) | (loss >= best + COLLAPSED), index=of.index)


def best(of: pd.DataFrame, metric: str, *, equal: bool = False) -> pd.Series:
    """The best cell by a metric, or the best cell with nearly equal rates."""
    if equal:
        of = of[of["lora.ratio"].between(*NEARLY_EQUAL)]
    at = of[metric].argmin() if metric.endswith("loss") else of[metric].argmax()
    return of.iloc[int(at)]


def ridge(of: pd.DataFrame) -> float:
    """lr_A lr_B along the ridge: the geometric mean over the ratios whose tuned rate is inside their rates; or NaN."""
    logs = []
    for ratio, rates in of[of["lora.ratio"].between(*RIDGE)].groupby("lora.ratio"):
        tuned = vertex(np.log2(rates["optim.lr"]), rates[METRIC])
        logs += [2 * tuned + math.log2(float(str(ratio)))]
    inside = [log for log in logs if not math.isnan(log)]
    return float(2 ** np.mean(inside)) if inside else math.nan


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    found = cells(frame)
    rows = list(dict.fromkeys(zip(found["task"], found["lora.rank"], strict=True)))
    inits = sorted(found["lora.init"].unique())
    tall = max(of["lr_B"].nunique() for _, of in found.groupby(PLANE))
    size = (plotting.DOUBLE, len(rows) * (0.19 * tall + 0.95) + 0.7)
    figure, axes = plt.subplots(len(rows), len(inits), figsize=size, squeeze=False)
    for (at, column), ax in np.ndenumerate(axes):
        (task, rank), init = rows[at], inits[column]
        of = found[(found["task"] == task) & (found["lora.rank"] == rank) & (found["lora.init"] == init)]
        if of.empty:
            ax.set_axis_off()
            continue
        image = _heatmap(ax, of)
        _marks(ax, of)
        lost = best(of, METRIC, equal=True)[METRIC] - best(of, METRIC)[METRIC]
        ax.set_title(f"{_named(frame, (task, init, rank))}:\nnearly equal rates lose {_decimal(lost)} nats")
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01)
    bar.set_label("validation loss above the panel's lowest (nats)")
    bar.set_ticks(LEVELS, labels=[f"{level:g}".removeprefix("0") or "0" for level in LEVELS])
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def _heatmap(ax: "Axes", of: pd.DataFrame) -> Any:
    """A cell per pair with its loss above the lowest; cells of rates that are too high are grey, untried ones blank."""
    import matplotlib as mpl
    from matplotlib.colors import BoundaryNorm
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    table = of.pivot_table(index="lr_B", columns="optim.lr", values=METRIC, dropna=False)
    values = table.to_numpy(dtype=float) - np.nanmin(table)
    colours = mpl.colormaps["viridis_r"].resampled(len(LEVELS))
    norm = BoundaryNorm(LEVELS, len(LEVELS), extend="max")
    image = ax.imshow(values, cmap=colours, norm=norm, origin="lower", aspect="auto")
    contours = ax.contour(values, levels=[CONTOUR])
    contours.remove()
    for line in contours.allsegs[0]:
        if len(line) > 2:  # one of two points cuts off a single cell in a corner
            ax.plot(*np.transpose(line), color="black", lw=0.6)
    ax.plot([], [], color="black", lw=0.6, label=f"{CONTOUR:g} nats above the lowest")
    too_high, lowest = places(of, of[of["too_high"]]), places(of, best(of, METRIC).to_frame().T)
    grey: dict[str, Any] = {"facecolor": "0.8", "lw": 0}
    for x, y in too_high:
        ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, **grey))
    ax.fill_between([], [], label=f"too high: lower rates are {COLLAPSED:g} nats better", **grey)
    for x, y in set(places(of, of)) - set(lowest):
        dark = values[y, x] >= LEVELS[-3] and (x, y) not in too_high
        number = ax.text(x, y, _decimal(values[y, x]), ha="center", va="center", color="white" if dark else "black")
        cell = grey["facecolor"] if (x, y) in too_high else colours(norm(values[y, x]))
        number.set(zorder=4, path_effects=[withStroke(linewidth=2.5, foreground=cell)])  # the lines stop at numbers
    for axis, index, name in ((ax.xaxis, table.columns, "lr$_A$"), (ax.yaxis, table.index, "lr$_B$")):
        rates = np.asarray(index, dtype=float)
        unit = 10.0 ** math.floor(math.log10(rates.min()))
        axis.set_ticks(range(len(rates)), [f"{float(f'{rate / unit:.4g}'):g}" for rate in rates])
        axis.set_label_text(f"{name} (units of {plotting.short(unit)})")
        axis.set_tick_params(length=0)
    ax.spines[:].set_visible(False)
    return image


def _marks(ax: "Axes", of: pd.DataFrame) -> None:
    """Star: the best cell; box: the best of nearly equal rates; dots: equal rates; dashes: the ridge."""
    from matplotlib.patches import Rectangle

    top, equal = (places(of, best(of, METRIC, equal=each).to_frame().T)[0] for each in (False, True))
    ax.scatter(*top, marker="*", s=110, color=MARK, edgecolor="white", lw=0.6, zorder=3, label="lowest")
    box: dict[str, Any] = {"facecolor": "none", "edgecolor": MARK, "lw": 1.8}
    ax.add_patch(Rectangle((equal[0] - 0.5, equal[1] - 0.5), 1, 1, zorder=3, **box))
    ax.fill_between(
        [], [], label=f"lowest at nearly equal rates (λ = {NEARLY_EQUAL[0]:g} to {NEARLY_EQUAL[1]:g})", **box
    )
    lr_A, lr_B = (np.sort(of[name].unique()).astype(float) for name in ("optim.lr", "lr_B"))
    across = np.geomspace(lr_A[0], lr_A[-1], 400)
    for product, colour, style, label in (
        (across**2, "black", ":", "equal rates"),
        (ridge(of), MARK, "--", r"ridge: lr$_A \times$ lr$_B$ = constant"),
    ):
        ax.plot(_at(across, lr_A), _at(product / across, lr_B), color=colour, ls=style, lw=1.0, alpha=0.7, label=label)


def places(of: pd.DataFrame, some: pd.DataFrame) -> list[tuple[int, int]]:
    """The column and the row of some cells in a panel."""
    found = [np.searchsorted(np.sort(of[name].unique()), some[name].astype(float)) for name in ("optim.lr", "lr_B")]
    return [(int(x), int(y)) for x, y in zip(*found, strict=True)]


def _at(rates: "NDArray[np.float64]", axis: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """The places of rates on an axis whose ticks are cells; NaN outside."""
    return np.interp(np.log2(rates), np.log2(axis), np.arange(len(axis)), left=np.nan, right=np.nan)


def _decimal(value: float) -> str:
    """`.012`, `.36`, `1.3`: three decimals below .1; a dash for a run that diverged."""
    if math.isnan(value):
        return "-"
    text = f"{value:.3f}" if value < 0.0995 else f"{value:.2f}" if value < 0.995 else f"{value:.1f}"
    return text.removeprefix("0") if value else "0"


def caption(frame: pd.DataFrame) -> str:
    return (
        f"{captions.setting(frame)}, {captions.seeds(frame)}; a number is a cell's mean validation loss above the "
        f"lowest of its panel. {captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """For every panel one row for the best cell by validation loss, and one for the best with nearly equal rates."""
    rows = []
    for (task, init, rank), of in cells(frame).groupby(PLANE):
        for name, cell in (("best", best(of, METRIC)), ("equal", best(of, METRIC, equal=True))):
            rows.append(
                {
                    "task": task,
                    "init": init,
                    "rank": rank,
                    "cell": name,
                    "lr_A": cell["optim.lr"],
                    "lr_B": cell["lr_B"],
                    "ratio": cell["lora.ratio"],
                    **{metric: round(cell[metric], 4) for metric in SCORES},
                    "ridge": float(f"{ridge(of):.3g}"),
                    "interior": interior(of, cell),
                }
            )
    return pd.DataFrame(rows)


def interior(of: pd.DataFrame, cell: pd.Series) -> bool:
    """Whether a cell, or a cell within a standard error of it, is inside both learning-rate axes."""

    def inside(each: pd.Series) -> bool:
        return all(of[axis].min() < each[axis] < of[axis].max() for axis in ("optim.lr", "lr_B"))

    ties = of[of[METRIC] <= cell[METRIC] + np.nan_to_num(cell["error"])]
    return any(inside(each) for _, each in ties.iterrows())


def questions(frame: pd.DataFrame) -> list[Question]:
    """Fig 3: test accuracy of the best pair less that of the best with nearly equal rates, over the planes.

    Both are selected by mean validation loss on the same seeds, which favours the best pair; `ratio` has fresh seeds.
    """
    gains = []
    for _, of in frame.groupby(PLANE):
        table = cells(of)
        top, equal = (_scores(of, best(table, METRIC, equal=each)) for each in (False, True))
        gains.append(float((top - equal).mean()))
    claims = [Claim("the seeds that chose", mean_interval(gains), "1 to 2 points", 0.01)]
    return [
        Question("does the best pair of rates beat the best of nearly equal rates?", "LoRA+, Fig 3", "points", claims)
    ]


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
