"""The study `toy_mlp`: LoRA+'s Figure 2, the loss of a small network over (lr_A, lr_B), and its optimum against n.

`python analysis/toy_mlp.py`: results/toy_mlp.csv -> figures/toy_mlp.{png,pdf}. `loralab study toy_mlp` measures it
(theory/mlp.py trains; theory/plane.py defines the rows).
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures
from loralab.studies.intervals import dots
from loralab.studies.questions import Claim, Question
from loralab.studies.stats import Interval, mean_interval, ratio_interval
from loralab.theory import plane
from loralab.theory.plane import ADVICE, ARMS, EARLY, LATE, choice, off_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEYS = [*plane.KEYS]
KEPT = [*KEYS, *plane.SCORES, "commit", "diff"]
STYLES = {
    "lr_A": (plotting.COLOURS[0], "lr$_A$"),
    "lr_B": (plotting.COLOURS[1], "lr$_B$"),
    "ratio": (plotting.COLOURS[2], "λ"),
}
GAPS = {"best": ("black", "best pair", 0.0), "advice": (plotting.COLOURS[4], f"λ = {ADVICE}", 0.15)}
SLOPES = {"lr_A": -1.0, "lr_B": 0.0, "ratio": 1.0}  # exponents of the optimum against n (LoRA+, Theorem 1)
NEAR = 1.1  # losses up to this multiple of the lowest are near
DEEPEST = 30  # the colour scale ends at this multiple of the lowest loss


def wanted(smoke: bool) -> pd.DataFrame:
    return plane.wanted(plane.SMOKE if smoke else plane.FULL)


def measure(smoke: bool) -> pd.DataFrame:
    return plane.measured(plane.SMOKE if smoke else plane.FULL)


def near(grid: pd.DataFrame) -> pd.DataFrame:
    """The pairs with a training loss within 10% of the best pair's."""
    some = off_lines(grid)
    found: pd.DataFrame = some[some["train"] <= NEAR * some["train"].min()]
    return found


def printed(frame: pd.DataFrame) -> int:
    return int(frame.loc[frame["part"] == "plane", "n"].iloc[0])


def widths(frame: pd.DataFrame) -> list[int]:
    return sorted(frame.loc[frame["part"] == "width", "n"].unique().tolist())


def grid_of(frame: pd.DataFrame, n: int, step: int = LATE) -> pd.DataFrame:
    """The candidate pairs at a width, with their ratio."""
    own = frame[frame["part"].isin(["plane", "width"]) & (frame["n"] == n) & (frame["step"] == step)]
    return own.assign(ratio=own["lr_B"] / own["lr_A"])


def own(frame: pd.DataFrame, n: int, arm: str = "best", step: int = LATE) -> pd.DataFrame:
    """The pair that each seed selects by its training loss, with its ratio; in the order of the seeds."""
    rows = frame[(frame["part"] == "own") & (frame["n"] == n) & (frame["arm"] == arm) & (frame["step"] == step)]
    return rows.assign(ratio=rows["chosen_B"] / rows["chosen_A"]).sort_values("seed")


def gap(frame: pd.DataFrame, n: int, arm: str = "best", step: int = LATE) -> Interval:
    """Test loss of a seed's best equal pair over that of another arm's pair, as a geometric mean."""
    return ratio_interval(own(frame, n, "equal", step)["test"], own(frame, n, arm, step)["test"])


def doublings(frame: pd.DataFrame, step: int = LATE) -> Interval:
    """log2 of the ratio of a seed's best pair at n = 100."""
    return mean_interval(np.log2(own(frame, printed(frame), step=step)["ratio"]))


def exponent(frame: pd.DataFrame, column: str) -> Interval:
    """The slope of log column against log n, from a line through each seed's best pairs."""
    logs = np.log2([own(frame, n)[column] for n in widths(frame)])
    return mean_interval(np.polyfit(np.log2(widths(frame)), logs, 1)[0])


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(plotting.DOUBLE, 5))
    _heatmap(axes[0][0], grid_of(frame, printed(frame)), "train")
    _optima(axes[0][1], frame, {"lr_A": "chosen_A", "lr_B": "chosen_B"})
    _optima(axes[1][0], frame, {"ratio": "ratio"})
    _gaps(axes[1][1], frame)
    return figure


def _heatmap(ax: "Axes", of: pd.DataFrame, split: str) -> None:
    """One cell per pair, on log axes; star: the best; ring: the best with equal rates."""
    from matplotlib.colors import LogNorm

    table = of.pivot_table(index="lr_B", columns="lr_A", values=split, dropna=False)
    values = table.to_numpy(dtype=float)
    low = float(np.nanmin(values))
    places = [np.log10(index.to_numpy(dtype=float)) for index in (table.columns, table.index)]
    (left, right), (bottom, top) = ((each[0], each[-1]) + np.diff(each)[0] / 2 * np.array([-1, 1]) for each in places)
    image = ax.imshow(
        values, norm=LogNorm(low, DEEPEST * low), cmap="viridis_r", origin="lower", aspect="auto",
        extent=(left, right, bottom, top),
    )  # fmt: skip
    ax.set_facecolor("0.8")
    ax.plot([left, right], [left, right], color="black", lw=0.8, ls=":", label="equal rates")
    best, equal = (np.log10(choice(of, arm, split)[["lr_A", "lr_B"]].to_numpy(dtype=float)) for arm in ARMS)
    for (x, y), size, mark, label in ((best, 90, "*", "lowest"), (equal, 45, "o", "lowest at equal rates")):
        ax.scatter(x, y, s=size, marker=mark, label=label, color="#D55E00", edgecolor="white", zorder=3)
    ax.fill_between([], [], facecolor="0.8", edgecolor="0.4", lw=0.6, label="diverged")
    for axis, ends in ((ax.xaxis, (left, right)), (ax.yaxis, (bottom, top))):
        powers = range(int(np.ceil(ends[0])), int(np.floor(ends[1])) + 1, 2)
        plotting.label_powers(axis, [10.0**power for power in powers], places=powers)
    ax.spines[:].set_visible(False)
    ax.set(title=f"a) training loss, n = {int(of['n'].iloc[0])}, step {int(of['step'].iloc[0])}")
    ax.set(xlabel="lr$_A$", ylabel="lr$_B$")
    ax.legend(loc="upper right", borderaxespad=0.3, frameon=True, framealpha=1, edgecolor="none", fancybox=False)
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.06, pad=0.02, extend="max")
    marks = [low, 3 * low, 10 * low, DEEPEST * low]
    bar.set_ticks(marks, labels=[f"{mark:.2g}" for mark in marks])
    bar.minorticks_off()
    bar.outline.set_visible(False)


def _optima(ax: "Axes", frame: pd.DataFrame, columns: dict[str, str]) -> None:
    """Against n: the best pair of the means; small dots: each seed's best; dotted: the theory's slope.

    columns: of the pairs -> of each seed's best pairs. A dotted line runs through the large dots' geometric means.
    """
    found = np.array(widths(frame), dtype=float)
    for at, (column, chosen) in enumerate(columns.items()):
        colour, name = STYLES[column]
        places = found * 2 ** (0.25 * (at - (len(columns) - 1) / 2))
        best = np.array([choice(grid_of(frame, n), "best")[column] for n in widths(frame)])
        for place, n in zip(places, widths(frame), strict=True):
            each = own(frame, n)[chosen]
            ax.plot([place] * len(each), each, ".", color=colour, ms=4, alpha=0.4, mew=0)
        ax.plot(places, best, "o", color=colour, ms=6, label=name)
        line = np.exp(np.log(best).mean()) * (found / np.exp(np.log(found).mean())) ** SLOPES[column]
        theory = {-1.0: "1 / n", 0.0: "constant", 1.0: "n"}[SLOPES[column]]
        ax.plot(places, line, ":", color=colour, label=f"theory: {theory}")
    ax.plot([], [], ".", color="0.4", ms=4, mew=0, label="each seed")
    ax.set_yscale("log")
    ax.set_title("c) best λ" if "ratio" in columns else "b) best rates")
    ax.set_ylabel("ratio λ = lr$_B$ / lr$_A$" if "ratio" in columns else "rate")
    _against_n(ax, found)


def _gaps(ax: "Axes", frame: pd.DataFrame) -> None:
    """Test loss at a seed's best equal rates over that at its other pairs, against n, with intervals over the seeds."""
    for arm, (colour, name, shift) in GAPS.items():
        places = np.array(widths(frame)) * 2**shift
        dots(ax, places, [gap(frame, n, arm) for n in widths(frame)], colour, f"over {name}", join="-")
    ax.axhline(1, color="0.4", lw=0.8)
    ax.set(title="d) test loss of the best equal rates", ylabel="ratio (above 1: worse)")
    _against_n(ax, np.array(widths(frame)))


def _against_n(ax: "Axes", found: Any) -> None:
    ax.set(xlabel="n")
    ax.set_xscale("log", base=2)
    plotting.label_powers(ax.xaxis, found)
    scale = ax.yaxis.get_transform()
    low, high = scale.transform(ax.get_ylim())
    ax.set_ylim(top=float(scale.inverted().transform(high + 0.25 * (high - low))))  # room for the legend
    handles, labels = ax.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda at: (labels[at] == "each seed", labels[at].startswith("theory")))
    ax.legend(
        [handles[at] for at in order],
        [labels[at] for at in order],
        ncols=3,
        loc="upper center",
        columnspacing=0.6,
        handletextpad=0.4,
    )


def caption(frame: pd.DataFrame) -> str:
    n = printed(frame)
    size = plane.FULL if n == plane.FULL.n else plane.SMOKE
    ratio, same = doublings(frame), gap(frame, n, "advice")
    return (
        f"f = W_out relu(B A relu(W_in x)), as in LoRA+, Fig 2. a: {len(size.seeds)} seeds. Best by training loss at "
        f"step {LATE}; b, c: of the mean of {len(size.width_seeds)} seeds, and of each; dotted: the theory's slope, "
        f"through the mean of the large dots. d: each seed's own, 95%. At n = {n}: log2 λ {_span(ratio)}, equal rates "
        f"over λ = {ADVICE} {_span(same, 2)}. {captions.code(frame)}."
    )


def _span(found: Interval, digits: int = 1) -> str:
    return f"{found.estimate:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per n and step: the best pair by mean training loss, the best equal pair, and both per seed."""
    rows = []
    for n, step in ((printed(frame), EARLY), *((n, LATE) for n in (printed(frame), *widths(frame)))):
        grid = grid_of(frame, n, step)
        best, equal = (choice(grid, arm) for arm in ARMS)
        close = near(grid)["ratio"]
        row = {"n": n, "step": step, "lr_A": best["lr_A"], "lr_B": best["lr_B"], "ratio": _digits(best["ratio"])}
        row |= {"within 10%": f"{close.min():.3g} to {close.max():.3g}"}
        row |= {f"{split} loss": _digits(best[split]) for split in ("train", "test")} | {"equal rates": equal["lr_A"]}
        row |= {f"{split} loss, equal": _digits(equal[split]) for split in ("train", "test")}
        alone = np.log2(own(frame, n, step=step)["ratio"])
        row |= {"log2 ratio by seed": f"{alone.mean():.1f} ± {alone.std():.1f}"}
        for arm, name in (("best", "equal / best by seed"), ("advice", f"equal / λ = {ADVICE} by seed")):
            more = gap(frame, n, arm, step)
            row |= {name: f"{more.estimate:.2f} [{more.low:.2f}, {more.high:.2f}]"}
        row |= {"interior": _inside(grid, best)}
        rows.append(row)
    return pd.DataFrame(rows)


def _digits(value: float) -> float:
    return float(f"{value:.3g}")


def _inside(grid: pd.DataFrame, best: "pd.Series[Any]") -> bool:
    """Whether the best pair is inside both of the grid's axes."""
    return all(grid[rate].min() < best[rate] < grid[rate].max() for rate in ("lr_A", "lr_B"))


def questions(frame: pd.DataFrame) -> list[Question]:
    """Figure 2 as printed, and the theory's predictions for its optimum at other widths; each seed's own best pairs."""
    n = printed(frame)
    apart = ratio_interval(own(frame, n)["ratio"], np.ones(len(own(frame, n))))
    printed_claims = [
        Claim("test loss of the best equal rates over that of the best pair", gap(frame, n), "clearly higher"),
        Claim("lr_B over lr_A in the best pair", apart, "well above 1"),
        Claim(f"test loss of the best equal rates over that of λ = {ADVICE}", gap(frame, n, "advice"), "higher"),
    ]
    powers = [
        Claim("the best ratio", exponent(frame, "ratio"), "1", 1.0),
        Claim("the best lr_A", exponent(frame, "chosen_A"), "-1", -1.0),
    ]
    where = f"network of Fig 2, n = {n}, step {LATE}"
    span = f"network of Fig 2, n = {widths(frame)[0]} to {widths(frame)[-1]}, step {LATE}"
    return [
        Question(
            f"does the best pair of rates beat the best of equal rates ({where})?", "LoRA+, Fig 2", "x", printed_claims
        ),
        Question(f"as which power of n do the best rates move ({span})?", "LoRA+, Theorem 1", "", powers),
    ]


if __name__ == "__main__":
    figures.main(__file__)
