"""The study `width`: accuracy and speed against λ at several widths n, the same against λ/n, and the best rates.

`python analysis/width.py`: results/width.csv -> figures/width.{png,pdf} (LoRA+, Theorem 1: lr_A as 1/n, lr_B as 1, so λ
as n). `width_small` and `paper/width_roberta` share it. The windows select the rates (stage grid), and the losses of
all their cells say how the best rates move with n (loralab.studies.collapse). Comparisons use fresh seeds (confirm).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.errors import UserError
from loralab.studies import captions, figures
from loralab.studies.arms import comparison_row, interior, level, record_values, select_columns
from loralab.studies.collapse import Cells, Curve, lowest_place, powers, residual, separate_residual, shifts
from loralab.studies.intervals import dots
from loralab.studies.questions import Claim, Question
from loralab.studies.ratios import ADVICE, arm, difference, ratios, tuned
from loralab.studies.registered_speed import registered_speedup
from loralab.studies.stats import Interval, paired, whole_mean
from loralab.studies.thinned_curves import curve, curve_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

SCORES = ["validation/loss", "validation/accuracy", "test/loss", "test/accuracy", "train/loss"]
AXES = ["seed", "task", "method", "lora.init", "lora.ratio", "optim.lr", "optim.head_lr"]
AXES += ["model.widen", "model.widen_noise", *captions.SETTING]
KEPT = ["hash", "stage", *AXES, "status", "width", *SCORES, "start", "seconds", "commit", "diff"]
WIDE = 4096  # as in a model of 7B parameters
THEORY = {"lr_A": -1.0, "lr_B": 0.0, "λ": 1.0}
"""Theorem 1: the powers of n as which the best rates and their ratio go."""
BESIDE = 0.12  # doublings of λ that part the widths' bars
GATE = 0.5  # share of the head's loss that LoRA must reach
RATES, CURVE = 3, 2  # degrees: of the surface over both rates, and of a curve over λ, one or one for each width

Groups = dict[int, pd.DataFrame]
"""The rows of LoRA at each width n, ascending."""


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run, with its thinned curve; start: the validation loss before the first step."""
    logged = tables.curves
    first = logged[(logged["split"] == "validation") & (logged["name"] == "loss") & (logged["step"] == 0)]
    start = tables.runs["run"].map(first.set_index("run")["value"])
    runs = tables.runs.assign(width=record_values(tables, "backbone", "width"), start=start)
    return select_columns(tables._replace(runs=runs), [*KEPT, *curve_columns(runs)])


def by_width(frame: pd.DataFrame) -> Groups:
    """LoRA's rows at each width; UserError if they have several tasks, inits or ranks."""
    rows = frame[frame["method"] == "lora"]
    for key in ("task", "lora.init", "lora.rank"):
        if rows[key].nunique() > 1:
            several = ", ".join(map(str, rows[key].unique()))
            raise UserError(f"{key}: got {several}; one figure of width has one of them, so name one ({key}=...)")
    return {int(n): rows[rows["width"] == n] for n in sorted(rows["width"].unique())}


def gate(frame: pd.DataFrame) -> tuple[float, float]:
    """The lowest mean validation loss of the head alone, and of LoRA at the narrowest width; NaN without one."""
    heads = frame[(frame["method"] == "head") & (frame["stage"] == "grid")]
    alone = heads.groupby("optim.lr")["validation/loss"].agg(whole_mean)
    narrow = tuned(next(iter(by_width(frame).values())))["validation/loss"]
    return float(alone.min()) if len(alone) else np.nan, float(narrow.min())


def adapts(frame: pd.DataFrame) -> bool:
    """Whether LoRA leaves half of the head's loss or less; nothing follows from runs that hardly learn."""
    alone, ours = gate(frame)
    return ours <= GATE * alone


def rate_cells(groups: Groups, ratio: bool = False) -> Cells:
    """The better half of each width's cells of the windows, over log2 of lr_A and of lr_B, or of λ.

    The other half has the cliff where training collapses, which no polynomial fits. Each width has a level of its own.
    """
    better = {n: tuned(rows).dropna(subset="validation/loss") for n, rows in groups.items()}
    better = {n: cells[cells["validation/loss"] <= cells["validation/loss"].median()] for n, cells in better.items()}
    cells = pd.concat([own.assign(n=n) for n, own in better.items()])
    lr_A, by = (np.log2(cells[key].to_numpy(dtype=float)) for key in ("optim.lr", "lora.ratio"))
    places = np.column_stack([lr_A, by if ratio else lr_A + by])
    n, losses = (cells[key].to_numpy(dtype=float) for key in ("n", "validation/loss"))
    return Cells(places, n, losses, RATES, levels=True)


def score_cells(groups: Groups, score: Callable[[pd.DataFrame, float], float], *, levels: bool = False) -> Cells:
    """A score of each width and λ over log2 λ, without those that are NaN; score(a width's rows, λ)."""
    table = [(ratio, n, score(rows, ratio)) for n, rows in groups.items() for ratio in ratios(rows)]
    ratio, n, value = np.array([row for row in table if np.isfinite(row[2])]).reshape(-1, 3).T
    return Cells(np.log2(ratio)[:, None], n, value, CURVE, levels)


def fresh(metric: str) -> Callable[[pd.DataFrame, float], float]:
    """The mean of a test score on the fresh seeds, for `score_cells`."""
    return lambda rows, ratio: whole_mean(arm(rows, ratio)[metric])


def speed(rows: pd.DataFrame, ratio: float) -> Interval:
    """The registered speed-up of a ratio over λ = 1 in validation loss, paired by fresh seed."""
    base, own = arm(rows, 1), arm(rows, ratio)
    if ratio == 1:
        return Interval(1.0, 1.0, 1.0, len(base), 1.0)
    base_curves, own_curves = ([curve(row) for _, row in runs.iterrows()] for runs in (base, own))
    return registered_speedup(base_curves, own_curves, start=float(base["start"].mean()))


def doublings(rows: pd.DataFrame, ratio: float) -> float:
    return float(np.log2(speed(rows, ratio).estimate))


def gains(groups: Groups, metric: str = "test/accuracy") -> dict[int, Interval]:
    """LoRA+'s recommended λ minus λ = 1 on fresh seeds, at each width."""
    return {n: difference(rows, ADVICE, metric) for n, rows in groups.items()}


def one_curve(groups: Groups, metric: str = "test/accuracy") -> Curve:
    """A score on the fresh seeds as a curve of λ/n."""
    return Curve(score_cells(groups, fresh(metric)), THEORY["λ"])


def expected(curve_of_all: Curve, n: float) -> Interval:
    """λ = 16 minus λ = 1 at any width n, from the curve in λ/n; NaN where that leaves what was measured."""
    times = np.log2(n / curve_of_all.cells.widths.min())
    return curve_of_all.difference(np.log2(ADVICE) - times, -times)


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    groups = by_width(frame)
    figure, axes = plt.subplots(2, 3, figsize=(plotting.DOUBLE, 5.0))
    colours = dict(zip(groups, mpl.colormaps["viridis"](np.linspace(0.85, 0, len(groups))), strict=True))
    for n, beside in zip(groups, np.linspace(-BESIDE, BESIDE, len(groups)), strict=True):
        rows, tried = groups[n], ratios(groups[n])
        places = np.array(tried) * 2.0**beside
        scores = [level(rows[rows["lora.ratio"] == ratio], "test/accuracy") for ratio in tried]
        dots(axes[0][0], places, scores, colours[n], f"n = {n:,}", join="-", scale=100)
        dots(axes[0][1], places, [speed(rows, ratio) for ratio in tried], colours[n], join="-")
    accuracy, faster = score_cells(groups, fresh("test/accuracy")), score_cells(groups, doublings, levels=True)
    margin = 0.2 * np.ptp(accuracy.values)  # the interval of an arm with a failed seed would hide the other arms
    axes[0][0].set_ylim(100 * (accuracy.values.min() - margin), 100 * (accuracy.values.max() + margin))
    axes[0][0].set(title="a) test accuracy, %", xlabel="λ")
    axes[0][1].set(title="b) speed: times as fast as λ = 1", xlabel="λ")
    base = f"λ · {min(groups):,} / n"
    _collapsed(axes[1][0], accuracy, colours, lambda y: 100 * y)
    axes[1][0].set(title=f"d) accuracy, %\n{_residuals(accuracy, 100)}", xlabel=base)
    _collapsed(axes[1][1], faster, colours, np.exp2)
    axes[1][1].set(title=f"e) speed, levels free\n{_residuals(faster, 1)}", xlabel=base)
    axes[0][0].legend()
    axes[1][0].legend()
    for ax in (*axes[0][:2], *axes[1][:2]):
        ax.set_xscale("log", base=2)
        ends = ax.get_xlim()
        ticks = [power for power in range(-6, 9, 2) if ends[0] <= 2.0**power <= ends[1]]
        ax.set_xticks(
            [2.0**power for power in ticks], [f"1/{2**-power}" if power < 0 else f"{2**power}" for power in ticks]
        )
    for ax in (axes[0][1], axes[1][1]):
        ax.axhline(1, color="0.6", lw=0.6, ls=":", zorder=0)
    _rates(axes[0][2], groups)
    _gains(axes[1][2], groups)
    return figure


def _collapsed(ax: "Axes", cells: Cells, colours: dict[int, Any], scale: Callable[[Any], Any]) -> None:
    """The cells of all widths over λ/n, and the one curve."""
    one = Curve(cells, THEORY["λ"])
    x = np.linspace(one.moved.min(), one.moved.max(), 100)
    ax.plot(2.0**x, scale(one(x)), color="0.6", lw=1.5, zorder=0, label="one curve")
    for n, colour in colours.items():
        own = cells.widths == n
        ax.plot(2.0 ** one.moved[own], scale(one.aligned[own]), "o", color=colour)


def _residuals(cells: Cells, scale: float) -> str:
    """`off a curve of λ/n 0.31, of λ 0.30, of each n 0.28`: standard deviations about one or one for each width."""
    left = [residual(cells, [THEORY["λ"]]), residual(cells, [0.0]), separate_residual(cells, CURVE)]
    moving, still, own = (f"{scale * each:.2g}" for each in left)
    return f"off a curve of λ/n {moving},\nof λ {still}, of each n {own}"


def _rates(ax: "Axes", groups: Groups) -> None:
    """The best rates at each width, carried from the narrowest by the surface's shift; dotted: the theory's powers."""
    cells = rate_cells(groups)
    start, found, moved = lowest_place(cells), powers(cells, [THEORY["lr_A"], THEORY["lr_B"]]), shifts(cells)
    ends = np.array([min(groups), max(groups)], dtype=float)
    for at, name in enumerate(("lr_A", "lr_B")):
        colour, label = plotting.COLOURS[at], f"lr$_{name[-1]}$"
        x, y = [min(groups)], [Interval(0.0, 0.0, 0.0, 0, np.nan)]
        for n, each in moved.items():
            x, y = [*x, int(n)], [*y, each[at]]
        rate, low, high = 2.0 ** (start[at] + np.array([(each.estimate, each.low, each.high) for each in y]).T)
        ax.errorbar(x, rate, yerr=[rate - low, high - rate], fmt="o", elinewidth=0.8, color=colour, label=label)
        for power, style in ((found[at].estimate, "-"), (THEORY[name], ":")):
            ax.plot(ends, 2.0 ** start[at] * (ends / ends[0]) ** power, style, color=colour, lw=0.9)
    lines = [
        f"lr$_{name}$ as $n^{{{each.estimate:.2f}}}$ {_ends(each)}" for name, each in zip("AB", found, strict=True)
    ]
    ax.set(title="c) best rates:\n" + "\n".join(lines), xlabel="width n (dotted: theory)", yscale="log")
    ax.set_xscale("log", base=2)
    plotting.label_powers(ax.xaxis, list(groups))
    ax.legend()


def _ends(found: Interval) -> str:
    """`[-1.08, -0.86]`."""
    return f"[{found.low:.2f}, {found.high:.2f}]"


def _gains(ax: "Axes", groups: Groups) -> None:
    ax.axhline(0, color="0.6", lw=0.6, ls=":")
    measured = gains(groups)
    dots(ax, [*measured], [*measured.values()], plotting.COLOURS[0], "measured", join="-", scale=100)
    n = np.geomspace(min(groups), max(WIDE, *groups), 60)
    found = one_curve(groups)
    line = [100 * expected(found, each).estimate for each in n]
    ax.plot(n, line, "--", color=plotting.COLOURS[1], lw=0.9, label="one curve of λ/n")
    far = expected(found, WIDE)
    if np.isfinite(far.estimate):
        dots(ax, [WIDE], [far], plotting.COLOURS[1], f"it at {WIDE:,}, not measured", mark="D", scale=100)
    ax.set(title=f"f) accuracy of λ = {ADVICE} over 1,\npoints", xlabel="width n")
    ax.set_xscale("log", base=2)
    plotting.label_powers(ax.xaxis, [*groups, *([WIDE] if max(groups) < WIDE else [])])
    ax.legend()


def caption(frame: pd.DataFrame) -> str:
    groups = by_width(frame)
    confirm, grid = (frame[frame["stage"] == stage] for stage in ("confirm", "grid"))
    trials = " or ".join(map(str, grid[grid["method"] == "lora"].groupby(["width", "lora.ratio"]).size().unique()))
    alone, ours = gate(frame)
    loss = gains(groups, "test/loss")[max(groups)]
    fails = "" if adapts(frame) else " LoRA does not halve it: nothing follows."
    of = f"{captions.tasks(frame)}, {captions.setting(pd.concat(groups.values()))}"
    return (
        f"{of}, init {frame['lora.init'].iloc[0]}. Best of {trials} runs for each λ and width, then "
        f"{confirm['seed'].nunique()} fresh seeds; 95%. Head alone {alone:.2f} nats, LoRA {ours:.2f}.{fails} At n = "
        f"{max(groups):,} λ = {ADVICE} over 1: {loss.estimate:+.3f} nats. {captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per width and λ: its selected rate, its fresh scores, its differences from λ = 1, and its speed-up."""
    rows = []
    for n, of in by_width(frame).items():
        for ratio in ratios(of):
            found = speed(of, ratio)
            times = f"{found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}]"
            scores = comparison_row(arm(of, ratio), arm(of, 1))
            rows.append({"width": n, "ratio": ratio, **scores, "sooner": times, "interior": interior(of, ratio)})
    return pd.DataFrame(rows)


def row_keys(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[["width"]].assign(ratio=frame["lora.ratio"])


def questions(frame: pd.DataFrame) -> list[Question]:
    """None where LoRA does not pass the gate."""
    if not adapts(frame):
        return []
    groups = by_width(frame)
    model, init = (frame[key].iloc[0] for key in ("model", "lora.init"))
    where = f"({captions.tasks(frame)}, {captions.NAMES.get(model, model)}, init {init})"
    found = powers(rate_cells(groups), [THEORY["lr_A"], THEORY["lr_B"]])
    found.append(powers(rate_cells(groups, ratio=True), [THEORY["lr_A"], THEORY["λ"]])[1])
    moving = [
        Claim(f"the best {name}", each, f"{power:g}", power, exact=True)
        for (name, power), each in zip(THEORY.items(), found, strict=True)
    ]
    gained, loss = (_gained(groups, metric) for metric in ("test/accuracy", "test/loss"))
    wider = [Claim(f"n = {max(groups):,} over n = {min(groups):,}", gained, "more", loss=loss)]
    text = f"does λ = {ADVICE} gain more accuracy over λ = 1 at a larger width {where}?"
    return [
        Question(f"as which power of the width n do the best rates move {where}?", "LoRA+, Theorem 1", "", moving),
        Question(text, "LoRA+, Theorem 1", "points", wider),
    ]


def _gained(groups: Groups, metric: str) -> Interval:
    """What LoRA+'s recommended λ gains over λ = 1 at the widest less that at the narrowest, paired by fresh seed."""
    more, less = (
        np.subtract(*(arm(groups[n], ratio)[metric].to_numpy(dtype=float) for ratio in (ADVICE, 1)))
        for n in (max(groups), min(groups))
    )
    known = not np.isnan([*less, *more]).any()
    return paired(more, less) if known else Interval(np.nan, np.nan, np.nan, len(more), np.nan)


if __name__ == "__main__":
    figures.main(__file__)
