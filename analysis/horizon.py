"""The study `horizon`: the tuned rate against the number of steps, and whether a short run finds it for a long one.

`python analysis/horizon.py`: results/horizon.csv -> figures/horizon.{png,pdf} (in no paper)
"""

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures
from loralab.studies.arms import interior
from loralab.studies.minima import vertex
from loralab.studies.questions import Claim, Question
from loralab.studies.stats import Interval, slope, whole_mean
from loralab.studies.thinned_curves import SHARES, curve_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

LOSS = "validation/loss"
SCORES = [LOSS, "validation/accuracy", "test/loss", "test/accuracy", "train/loss"]
AXES = ["seed", "task", "lora.init", "lora.ratio", "optim.lr", "train.eval_every", *captions.SETTING]
KEPT = ["hash", "stage", *AXES, "status", *SCORES, "seconds", "commit", "diff"]
SHORT, LONG = 50, 800  # of the claim that a short run finds the rate within a factor of two
EARLY = 0.3  # share of the steps of the claim about prefixes
NOISE = 0.01  # nats; two seeds of one good cell differ by .008 to .019
FEWEST = 100  # steps of the runs whose prefixes are judged


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run, with its validation curve."""
    return tables.runs[[*KEPT, *curve_columns(tables.runs)]]


def arms(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per number of steps and ratio, with log2 of its tuned lr_A and of c = lr_A sqrt(r λ s); s = alpha / r.

    Tuned: the vertex of the parabola through the best rate and its neighbours, of the means over the seeds; NaN if the
    best rate is at its window's end.
    """
    rows = []
    for (steps, ratio), own in frame.groupby(["train.steps", "lora.ratio"]):
        losses = _mean_losses(own)
        tuned = vertex(np.log2(losses.index.to_numpy(dtype=float)), losses)
        c = tuned + math.log2(own["lora.alpha"].iloc[0] * float(str(ratio))) / 2
        rows.append({"steps": steps, "ratio": ratio, "tuned": tuned, "c": c, "lowest": losses.min()})
    return pd.DataFrame(rows)


def exponent(frame: pd.DataFrame) -> Interval:
    """The slope of log2 lr_A in log2 steps over the arms, each ratio with its own level."""
    found = arms(frame).dropna()
    return slope(np.log2(found["steps"]), found["tuned"], blocks=found["ratio"])


def c_at_100(frame: pd.DataFrame) -> float:
    """c at 100 steps on the line through all arms."""
    found = arms(frame).dropna()
    return float(2 ** (found["c"] - exponent(frame).estimate * np.log2(found["steps"] / 100)).mean())


def prefixes(frame: pd.DataFrame) -> pd.DataFrame:
    """For every window of runs and share: the final loss of the rate that is best at this share, above the lowest.

    A rate whose run diverged counts as the window's worst.
    """
    rows = []
    for (steps, ratio, seed), own in frame[frame["train.steps"] >= FEWEST].groupby(
        ["train.steps", "lora.ratio", "seed"]
    ):
        for share in SHARES:
            then = own[f"{LOSS}@{share:g}"]
            if then.notna().any():
                final = own[LOSS].fillna(own[LOSS].max())
                rows.append((steps, ratio, seed, share, final.iloc[int(np.nanargmin(then))] - final.min()))
    return pd.DataFrame(rows, columns=["steps", "ratio", "seed", "share", "regret"])


def short_runs(frame: pd.DataFrame, *, scaled: bool = False) -> pd.DataFrame:
    """For every ratio and pair of lengths: the long runs' loss at the short runs' best rate, above their lowest.

    scaled: the best rate is first multiplied by (long / short)^power; the power is the exponent of the other ratios.
    Between two rates the loss is a line in log lr; beyond a window it is that of the window's end, and `outside` is
    true.
    """
    rows = []
    for ratio, own in frame.groupby("lora.ratio"):
        power = exponent(frame[frame["lora.ratio"] != ratio]).estimate if scaled else 0.0
        if math.isnan(power):
            continue
        lengths = {float(str(steps)): _mean_losses(of).dropna() for steps, of in own.groupby("train.steps")}
        for short, long in ((a, b) for a in lengths for b in lengths if a < b and b >= 2 * FEWEST):
            rate = _best_rate(lengths[short]) * (long / short) ** power
            rates = lengths[long].index.to_numpy(dtype=float)
            regret = np.interp(np.log2(rate), np.log2(rates), lengths[long]) - lengths[long].min()
            outside = not rates.min() * 0.99 <= rate <= rates.max() * 1.01
            rows.append((short, long, ratio, short / long, float(regret), outside))
    return pd.DataFrame(rows, columns=["short", "long", "ratio", "share", "regret", "outside"])


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(plotting.DOUBLE, 2.7), width_ratios=(1, 1, 1.15))
    _tuned(left, frame)
    _valleys(middle, frame, frame["lora.ratio"].min())
    _regrets(right, frame)
    return figure


def _tuned(ax: "Axes", frame: pd.DataFrame) -> None:
    """c = lr_A sqrt(r λ s) of the arms against the number of steps, with the line through all of them."""
    found, power = arms(frame), exponent(frame)
    for (ratio, own), colour in zip(found.groupby("ratio"), plotting.COLOURS, strict=False):
        ax.plot(own["steps"], 2 ** own["c"], "o", ms=4.5, color=colour, label=f"λ = {ratio:g}")
    steps = np.array(sorted(found["steps"].unique()))
    if not math.isnan(power.estimate):
        ax.plot(steps, c_at_100(frame) * (steps / 100) ** power.estimate, color="0.4", lw=1, zorder=0)
    ax.set(xscale="log", yscale="log", xlabel="steps of the run", ylabel=r"c = lr$_A$ $\sqrt{r λ s}$, tuned")
    plotting.label_powers(ax.xaxis, steps)
    plotting.label_powers(ax.yaxis, [0.001, 0.002, 0.005, 0.01, 0.02, 0.04])
    ax.legend()
    ax.set_title(f"a) longer runs need lower rates\nc $\\propto$ steps$^{{{power.estimate:.2f}}}$")


def _valleys(ax: "Axes", frame: pd.DataFrame, ratio: float) -> None:
    """Loss above the lowest against lr_A, a line for each number of steps, which stands under its tuned rate."""
    import matplotlib as mpl

    own = frame[frame["lora.ratio"] == ratio]
    tuned = arms(own).set_index("steps")["tuned"]
    for shade, (steps, rates) in zip(np.linspace(0.85, 0, len(tuned)), own.groupby("train.steps"), strict=True):
        losses, colour = _mean_losses(rates), mpl.colormaps["viridis"](shade)
        ax.plot(losses.index, losses - losses.min(), "o-", color=colour, ms=2.5, lw=1)
        at = 2 ** tuned[steps] if tuned[steps] == tuned[steps] else _best_rate(losses)
        ax.plot([at, at], [-0.015, 0], color=colour, lw=1.5)
        ax.text(at, -0.02, f"{steps:g}", color=colour, ha="right", va="top", rotation=60, rotation_mode="anchor")
    ax.plot([], [], "|", color="0.4", ms=7, mew=1.5, label="vertex")
    ax.legend(loc="upper left", handlelength=0.6, borderaxespad=0)
    ax.set(xscale="log", xlabel="lr$_A$", ylabel="loss above the lowest (nats)", ylim=(-0.09, 0.3))
    ax.set_yticks([0, 0.1, 0.2, 0.3])
    ax.set_title(f"b) the valley moves left\nwith the steps (λ = {ratio:g})")


def _regrets(ax: "Axes", frame: pd.DataFrame) -> None:
    """Mean regret against the share of the steps at which the rate is chosen; open marks: at least this."""
    scaled = short_runs(frame, scaled=True)
    given = [("shorter run", short_runs(frame), "o"), ("scaled by a's law", scaled, "s")]
    for (label, found, marker), colour in zip(given, plotting.COLOURS, strict=False):
        of = found.groupby("share").agg({"regret": "mean", "outside": "any"})
        ax.plot(of.index, of["regret"], color=colour, lw=1, marker=marker, ms=4.5, label=label)
        ax.plot(of.index[of["outside"]], of["regret"][of["outside"]], marker, ms=4.5, color=colour, mfc="white")
    own = prefixes(frame).groupby("share")["regret"].mean()
    ax.plot(own.index, own, "^-", color=plotting.COLOURS[2], lw=1, ms=4.5, label="first part of the run")
    ax.axhline(NOISE, color="0.6", lw=0.8, ls=":")
    ax.set(xscale="log", xlabel="share of the steps", ylabel="loss above the best rate's (nats)")
    shares = 2.0 ** np.arange(-5, 1)
    plotting.label_powers(ax.xaxis, shares)
    ax.set_xticks(shares, [f"{100 * share:.0f}%" for share in shares])
    highest = max([NOISE, *own, *(of.groupby("share")["regret"].mean().max() for _, of, _ in given if len(of))])
    ax.set_ylim(0, 1.6 * highest)
    ax.legend(title="rate chosen by", handlelength=1.2, loc="upper right", borderaxespad=0)
    ax.set_title("c) a rate chosen early:\nwhat it costs at the end")


def caption(frame: pd.DataFrame) -> str:
    model = ", ".join(captions.NAMES.get(name, name) for name in frame["model"].unique())
    steps = f"{frame['train.steps'].min():g} to {frame['train.steps'].max():g} steps"
    return (
        f"{captions.tasks(frame)}, {model}, r = alpha = {frame['lora.rank'].iloc[0]:g}, {steps} of "
        f"{frame['train.batch_size'].iloc[0]:g}. a, b: vertices of parabolas through the best rate and its neighbours; "
        "line: fitted to all dots, one slope for all λ. c: means over λ and pairs of lengths; open: at least this "
        f"(rate not tried); law: the slope of the other λ; dotted: {NOISE:g} nats. {captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per number of steps and ratio: the tuned rate and c, and whether the best rate is inside its window."""
    rows = []
    for _, arm in arms(frame).iterrows():
        own = frame[(frame["train.steps"] == arm["steps"]) & (frame["lora.ratio"] == arm["ratio"])]
        rows.append(
            {
                "steps": int(arm["steps"]),
                "ratio": arm["ratio"],
                "seeds": own["seed"].nunique(),
                "tuned lr_A": float(f"{2 ** arm['tuned']:.3g}"),
                "c": float(f"{2 ** arm['c']:.3g}"),
                "lowest loss": round(arm["lowest"], 4),
                "interior": interior(own),
            }
        )
    return pd.DataFrame(rows)


def questions(frame: pd.DataFrame) -> list[Question]:
    claims = [Claim("lr_A as a power of the steps", exponent(frame), number=-0.25)]
    return [
        Question(
            f"does the tuned rate fall with the number of steps ({captions.tasks(frame)})?", "in no paper", "", claims
        )
    ]


def _mean_losses(own: pd.DataFrame) -> "pd.Series[float]":
    """The mean final loss over the seeds of every rate, ascending; NaN if a seed diverged."""
    return own.groupby("optim.lr")[LOSS].agg(whole_mean)


def _best_rate(losses: "pd.Series[float]") -> float:
    return float(losses.index.to_numpy(dtype=float)[int(np.nanargmin(losses))])


if __name__ == "__main__":
    figures.main(__file__)
