"""The study `width`: the best lr_A, lr_B and ratio λ against the width n, and the gains of λ in accuracy and speed.

`python analysis/width.py`: results/width.csv -> figures/width.{png,pdf} (LoRA+, Theorem 1: lr_A as 1/n, lr_B as 1, so λ
as n). The windows select the rates (stage grid); the comparisons use fresh seeds (stage confirm).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.errors import UserError
from loralab.store.run_directory import RunDirectory
from loralab.studies import captions, figures
from loralab.studies.arms import comparison_row, interior, select_columns, widths
from loralab.studies.minima import Minimum
from loralab.studies.questions import Claim, Question
from loralab.studies.ratios import arm, difference, optimum, pair_optimum, rate_optimum, ratios, tuned
from loralab.studies.ratios import best_ratio as chosen
from loralab.studies.stats import Interval, crossing, paired, slope, speedup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from loralab.studies.tables import Tables

SCORES = ["validation/loss", "validation/accuracy", "test/loss", "test/accuracy", "train/loss"]
EVALUATED = ["train.eval_every", "train.eval_first"]  # settings that differ between the two stages
AXES = ["seed", "task", "lora.init", "lora.ratio", "optim.lr", *EVALUATED, *captions.SETTING]
KEPT = ["hash", "stage", *AXES, "status", "width", "pretraining/loss", *SCORES, "curve", "seconds", "commit", "diff"]
FIXED = (4, 16, 64)
ADVICE = 16
SCALED = 16  # λ = n / 16
SHARE = 0.95  # share of λ = 1's gain
THEORY = {"lr": -0.5, "lr_A": -1.0, "lr_B": 0.0, "ratio": 1.0}
"""Which power of n the optima are: the rate at λ = 1 (Proposition 1), lr_A, lr_B and their ratio (Theorem 1)."""

Optima = dict[str, Minimum]
"""log2 of the optima of one width, under THEORY's names."""


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run; runs on fresh seeds have their curve of validation loss, as `0:0.693 10:0.681`."""
    logged = tables.curves
    losses = logged[(logged["split"] == "validation") & (logged["name"] == "loss")].sort_values("step")
    curves = {
        run: " ".join(f"{step}:{value:.6g}" for step, value in zip(of["step"], of["value"], strict=True))
        for run, of in losses.groupby("run")
    }
    runs = tables.runs.assign(width=widths(tables), curve=tables.runs["run"].map(curves))
    runs["curve"] = runs["curve"].where(runs["stage"] == "confirm", None)
    runs["pretraining/loss"] = [pretraining_loss(RunDirectory(tables.store / "runs" / run)) for run in runs["run"]]
    return select_columns(tables._replace(runs=runs), KEPT)


def pretraining_loss(run: RunDirectory) -> float:
    """Held-out loss, in nats, of the checkpoint that a run adapts; NaN if pretrain.py did not make it."""
    record = run.record()
    folder = None if record is None else record["config"]["model"]["path"]
    told: Any = None if folder is None else RunDirectory(Path(folder).parent).record()
    if told is None or "unigram_entropy" not in told:
        return np.nan
    return float(told["metrics"]["validation"]["last"]["loss"])


def by_width(frame: pd.DataFrame) -> dict[int, pd.DataFrame]:
    """The rows of each width; UserError if they have several tasks, inits or ranks."""
    for key in ("task", "lora.init", "lora.rank"):
        if frame[key].nunique() > 1:
            several = ", ".join(map(str, frame[key].unique()))
            raise UserError(f"{key}: got {several}; one figure of width has one of them, so name one ({key}=...)")
    return {int(n): frame[frame["width"] == n] for n in sorted(frame["width"].unique())}


def optima(rows: pd.DataFrame) -> Optima:
    found = (rate_optimum(rows), *pair_optimum(rows), optimum(rows))
    return dict(zip(THEORY, found, strict=True))


def power(found: dict[int, Optima], key: str, null: float = 0.0) -> Interval:
    """The slope of log2 of an optimum against log2 n, over the widths whose optimum is inside the tried range."""
    inside = {n: each[key].at for n, each in found.items() if each[key].interior}
    return slope(np.log2(list(inside)), list(inside.values()), null=null)


def crossings(rows: pd.DataFrame, ratio: float) -> tuple[list[float], list[float]]:
    """For each fresh seed, the step at which a ratio's validation loss reaches SHARE of λ = 1's mean gain, and the end.

    The gain is relative to step 0 and must last. The step is inf if a run never reaches it, or diverges. The end is the
    run's last step, because a run that did not reach the gain may reach it right after; inf for a diverged run.
    """
    base = [_curve(text) for text in arm(rows, 1)["curve"]]
    first, last = (float(np.mean([losses[at] for _, losses in base])) for at in (0, -1))
    level = first - SHARE * (first - last) if last < first else -np.inf
    own = arm(rows, ratio)
    found, ends = [], []
    for text, status in zip(own["curve"], own["status"], strict=True):
        steps, losses = _curve(text)
        diverged = status == "diverged"
        found.append(np.inf if diverged else crossing(steps[1:], [-loss for loss in losses[1:]], -level))
        ends.append(np.inf if diverged else steps[-1])
    return found, ends


def _curve(text: Any) -> tuple[list[float], list[float]]:
    """Steps and losses; a run that diverged before its first evaluation has one NaN at step 0."""
    pairs = [each.split(":") for each in text.split()] if isinstance(text, str) else [["0", "nan"]]
    steps, losses = zip(*pairs, strict=True)
    return list(map(float, steps)), list(map(float, losses))


def sooner(rows: pd.DataFrame, ratio: float) -> Interval:
    """Speed-up in steps of a ratio over λ = 1, to `SHARE` of λ = 1's gain, paired by fresh seed."""
    (base, base_ends), (other, ends) = crossings(rows, 1), crossings(rows, ratio)
    return speedup(base, other, horizon=[base_ends, ends])


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    groups = by_width(frame)
    found = {n: optima(rows) for n, rows in groups.items()}
    figure, axes = plt.subplots(2, 3, figsize=(plotting.DOUBLE, 4.3))
    colours = mpl.colormaps["viridis"](np.linspace(0.9, 0, len(groups)))
    for (n, rows), colour in zip(groups.items(), colours, strict=True):
        _window(axes[0][0], rows, found[n]["lr"], colour, f"n = {n}")
    axes[0][0].set_title(f"λ = 1, best lr as $n^p$:\n{_power(found, 'lr')}")
    axes[0][0].legend()
    tried = frame[frame["stage"] == "grid"]
    for at, key in enumerate(("lr_A", "lr_B")):
        rates = tried["optim.lr"] * (tried["lora.ratio"] if key == "lr_B" else 1)
        _against_width(axes[0][1], found, key, at, (rates.min(), rates.max()))
    axes[0][1].set_ylabel("best rate")
    axes[0][1].set_title(f"lr$_A$: {_power(found, 'lr_A')}\nlr$_B$: {_power(found, 'lr_B')}")
    axes[0][1].legend()
    ends = (float(frame["lora.ratio"].min()), float(frame["lora.ratio"].max()))
    _against_width(axes[0][2], found, "ratio", 2, ends)
    axes[0][2].axhline(1, color="0.6", lw=0.6, ls=":")
    axes[0][2].set_ylabel("best ratio λ")
    axes[0][2].set_title(f"best λ as $n^p$:\n{_power(found, 'ratio')}")
    _gains(axes[1][0], groups)
    _speeds(axes[1][1], groups)
    axes[1][2].plot(list(groups), [rows["pretraining/loss"].iloc[0] for rows in groups.values()], "o-", color="0.3")
    axes[1][2].set_ylabel("held-out loss of pretraining (nats)")
    for ax in axes.flat[1:]:
        ax.set_xscale("log", base=2)
        plotting.label_powers(ax.xaxis, list(groups))
        ax.set_xlabel("width n")
    return figure


def _power(found: dict[int, Optima], key: str) -> str:
    """`p = -0.41 [-0.90, 0.08] (theory -0.5)`."""
    p = power(found, key)
    ends = f"[{p.low:.2f}, {p.high:.2f}]" if p.low == p.low else f"(from {p.n} widths)"
    return f"p = {p.estimate:.2f} {ends} (theory {THEORY[key]:g})"


def _window(ax: "Axes", rows: pd.DataFrame, best: Minimum, colour: Any, label: str) -> None:
    """λ = 1's validation loss against the rate, and the parabola around its minimum."""
    found = tuned(rows)
    line = found[found["lora.ratio"] == 1]
    ax.plot(line["optim.lr"], line["validation/loss"], "o", color=colour, ms=2.5, label=label)
    if np.isfinite(best.at):
        lowest = float(line.nsmallest(1, "validation/loss")["optim.lr"].iloc[0])
        near = line[np.abs(np.log2(line["optim.lr"] / lowest)) < 1.1]
        x = np.log2(near["optim.lr"].to_numpy(dtype=float))
        level = float(np.mean(near["validation/loss"] - best.curvature * (x - best.at) ** 2 / 2))
        fine = np.linspace(x.min(), x.max(), 50)
        ax.plot(2.0**fine, level + best.curvature * (fine - best.at) ** 2 / 2, color=colour, lw=1)
    ax.set_xscale("log")
    ax.set_xlabel("lr$_A$ = lr$_B$")
    ax.set_ylabel("validation loss")


def _against_width(ax: "Axes", found: dict[int, Optima], key: str, at: int, tried: tuple[float, float]) -> None:
    """Optima and their intervals, cut a factor of 4 beyond the tried range; dotted: the theory's power through them."""
    colour, low, high = plotting.COLOURS[at], tried[0] / 4, tried[1] * 4
    drawn = {n: each[key] for n, each in found.items()}
    for n, each in drawn.items():
        place = n * 2 ** (0.08 * (at % 2))
        ax.plot([place, place], np.clip(2.0 ** np.clip([each.low, each.high], -99, 99), low, high), color=colour, lw=1)
        if low <= 2.0**each.at <= high:
            ax.plot(place, 2.0**each.at, "o", color=colour, mfc=colour if each.interior else "white")
    inside = {n: each.at for n, each in drawn.items() if each.interior}
    if inside:
        middle = np.mean([log2 - THEORY[key] * np.log2(n) for n, log2 in inside.items()])
        ends = np.array([min(drawn), max(drawn)], dtype=float)
        ax.plot(ends, np.clip(2.0**middle * ends ** THEORY[key], low, high), color=colour, lw=0.8, ls=":")
    ax.plot([], [], "o", color=colour, label=key.replace("_A", "$_A$").replace("_B", "$_B$"))
    ax.set_yscale("log", base=2 if key == "ratio" else 10)
    if key == "ratio":
        plotting.label_powers(ax.yaxis, [2.0**power for power in range(-4, 9, 2) if low <= 2.0**power <= high])


def gains(groups: dict[int, pd.DataFrame]) -> dict[str, dict[int, Interval]]:
    """Test accuracy minus that of λ = 1, by λ = 4, 16, 64 and n / 16 (the ratios that exist) and by width."""
    wanted = {f"λ = {ratio}": dict.fromkeys(groups, float(ratio)) for ratio in FIXED}
    wanted[f"λ = n/{SCALED}"] = {n: n / SCALED for n in groups}
    return {
        name: {
            n: difference(groups[n], ratio, "test/accuracy") for n, ratio in at.items() if ratio in ratios(groups[n])
        }
        for name, at in wanted.items()
    }


def _gains(ax: "Axes", groups: dict[int, pd.DataFrame]) -> None:
    ax.axhline(0, color="0.6", lw=0.6, ls=":")
    for at, (name, found) in enumerate(gains(groups).items()):
        places = [n * 2 ** (0.1 * (at - 1.5)) for n in found]
        points, low, high = (
            100 * np.array([getattr(f, k) for f in found.values()]) for k in ("estimate", "low", "high")
        )
        bars = np.clip([points - low, high - points], 0, None)  # an interval of zero width, up to rounding
        ax.errorbar(places, points, yerr=bars, fmt="o-", lw=0.8, color=plotting.COLOURS[at], label=name)
    ax.set_ylabel("test accuracy over λ = 1 (points)")
    ax.legend(ncols=2)


def _speeds(ax: "Axes", groups: dict[int, pd.DataFrame]) -> None:
    """The speed-up of the best λ above 1; open: some seeds never reached the gain; cross: no seed did."""
    ax.axhline(1, color="0.6", lw=0.6, ls=":")
    low, high = 0.22, 4.5
    for n, rows in groups.items():
        best = chosen(rows, above=1)
        found, censored = sooner(rows, best), np.isinf([*crossings(rows, best)[0], *crossings(rows, 1)[0]]).any()
        ax.plot([n, n], np.clip([found.low, found.high], low, high), color=plotting.COLOURS[3], lw=1)
        at, mark = (found.estimate, "o") if np.isfinite(found.estimate) else (1.0, "x")
        at, colour = float(np.clip(at, low, high)), plotting.COLOURS[3]
        ax.plot(n, at, mark, color=colour, mfc="white" if censored else colour)
        ax.annotate(f"{best:g}", (n, at), xytext=(4, 2), textcoords="offset points", fontsize=6)
    ax.set_yscale("log", base=2)
    ax.set_ylim(low, high)
    plotting.label_powers(ax.yaxis, [0.25, 0.5, 1, 2, 4])
    ax.set_ylabel("times sooner than λ = 1")
    ax.set_title("the best λ above 1")


def caption(frame: pd.DataFrame) -> str:
    confirm, grid = (frame[frame["stage"] == stage] for stage in ("confirm", "grid"))
    named = frame.assign(model=f"backbones {', '.join(map(str, by_width(frame)))} wide")
    return (
        f"{captions.tasks(frame)}, {captions.setting(named)}, init {'/'.join(frame['lora.init'].unique())}. Top left: "
        f"mean validation loss of {captions.seeds(grid)} at λ = 1; the parabola goes through the lowest and its "
        "neighbours. Middle: where a quadratic surface through the better half of the windows' cells is lowest (95%, "
        "Fieller's in the plane). Right: where a parabola through the arms' mean test losses on fresh seeds is lowest "
        "(95%, Fieller, of the spread between seeds). Open marks lie outside what was tried and are in no slope. p: "
        "slope over the widths, unweighted (95%, Student t: four widths have two degrees of freedom, so it is wide); "
        "dotted: the theory's. "
        f"Below, {captions.seeds(confirm)}, fresh ones, paired (95%, Student t), unadjusted: accuracy; steps to "
        f"{SHARE:.0%} of λ = 1's gain in validation loss at the λ that the windows chose (its number; open: some seeds "
        "never got there, which counts as right after the end, and then five seeds have no interval). Wider backbones "
        "are also better pretrained (last panel): no slope here tells width from pretraining. "
        f"{captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per width and ratio: its selected rate, its fresh scores, its differences from λ = 1 and its speed-up."""
    rows = []
    for n, of in by_width(frame).items():
        for ratio in ratios(of):
            fast = sooner(of, ratio)
            times = f"{fast.estimate:.2f} [{fast.low:.2f}, {fast.high:.2f}]"
            scores = comparison_row(arm(of, ratio), arm(of, 1))
            rows.append({"width": n, "ratio": ratio, **scores, "sooner": times, "interior": interior(of, ratio)})
    return pd.DataFrame(rows)


def questions(frame: pd.DataFrame) -> list[Question]:
    groups = by_width(frame)
    where = f"({captions.tasks(frame)}, init {'/'.join(frame['lora.init'].unique())})"
    lowest = {n: optima(rows) for n, rows in groups.items()}
    arms = {"lr_A": "the best lr_A", "lr_B": "the best lr_B", "ratio": "the best λ", "lr": "the best rate at λ = 1"}
    powers = [Claim(arm, power(lowest, key), f"{THEORY[key]:g}", THEORY[key], exact=True) for key, arm in arms.items()]
    less, more = (_gained(groups[n]) for n in (min(groups), max(groups)))
    known = not np.isnan([*less, *more]).any()
    gained = paired(more, less) if known else Interval(np.nan, np.nan, np.nan, len(more), np.nan)
    claims = [Claim(f"n = {max(groups)} over n = {min(groups)}", gained, "more")]
    text = f"does λ = {ADVICE} gain more accuracy over λ = 1 at a larger width {where}?"
    return [
        Question(f"as which power of the width n do the best rates move {where}?", "LoRA+, Theorem 1", "", powers),
        Question(text, "LoRA+, Theorem 1", "points", claims),
    ]


def _gained(rows: pd.DataFrame) -> "NDArray[np.float64]":
    """Test accuracy of LoRA+'s recommended λ minus that of λ = 1, by fresh seed."""
    some, other = (arm(rows, ratio)["test/accuracy"].to_numpy(dtype=float) for ratio in (ADVICE, 1))
    return np.asarray(some - other)


if __name__ == "__main__":
    figures.main(__file__)
