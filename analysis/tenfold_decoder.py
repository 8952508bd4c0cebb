"""The study `tenfold_decoder`: how many times full fine-tuning's best rate is LoRA's, on a pretrained decoder?

`python analysis/tenfold_decoder.py`: results/tenfold_decoder.csv -> figures/tenfold_decoder.{png,pdf}
(LoRA Without Regret, Schulman et al. 2025)
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures
from loralab.studies.arms import interior, shared
from loralab.studies.questions import Claim, Question
from loralab.studies.stats import Interval, whole_mean
from loralab.studies.thinned_curves import curve_columns
from loralab.studies.tuned_rates import seed_noise, tuned_arms, with_settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

LOSS = "validation/loss"
SCORES = [LOSS, "validation/accuracy", "test/loss", "test/accuracy", "train/loss"]
AXES = ["seed", "task", "method", "lora.init", "lora.ratio", "optim.lr", *captions.SETTING]
KEPT = ["hash", "stage", *AXES, "status", *SCORES, "seconds", "commit", "diff"]
FULL, THEIRS, OURS = "full fine-tuning", "LoRA, alpha = 32, all maps", "LoRA, alpha = 8, q and v"
COLOURS = dict(zip((FULL, THEIRS, OURS), plotting.COLOURS, strict=False))
PAPER = 10.0


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run, with its validation curve."""
    return tables.runs[[*KEPT, *curve_columns(tables.runs)]]


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the name of each row's arm."""
    lora = np.where(frame["lora.targets"] == "all", THEIRS, OURS)
    return frame.assign(arm=np.where(frame["method"] == "full", FULL, lora))


def tuned(frame: pd.DataFrame) -> pd.DataFrame:
    """tuned, low and high of each arm, by its name; no row where the best rate is at the end of its window."""
    return named(tuned_arms(frame, "tenfold_decoder")).set_index("arm")[["tuned", "low", "high"]]


def times(frame: pd.DataFrame, arm: str) -> Interval:
    """An arm's tuned rate over that of full fine-tuning; the interval is of the noise between seeds.

    NaN where one of the two is not known. The noise is taken as known, and as normal.
    """
    found = tuned(frame)
    if not {arm, FULL} <= set(found.index):
        return Interval(np.nan, np.nan, np.nan, 0, np.nan)
    ratio = float(found["tuned"][arm] / found["tuned"][FULL])
    shares = {each: [float(found[end][each] / found["tuned"][each]) for end in ("low", "high")] for each in (arm, FULL)}
    with np.errstate(divide="ignore"):  # an end that is not identified is 0
        down, up = ({each: abs(np.log(ends[at])) for each, ends in shares.items()} for at in (0, 1))
    below, above = (float(np.hypot(own[arm], full[FULL])) for own, full in ((down, up), (up, down)))
    low, high = ratio * float(np.exp(-below)), ratio * float(np.exp(above))
    return Interval(ratio, low, high, frame["seed"].nunique(), np.nan, np.inf)


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(plotting.DOUBLE, 2.7), width_ratios=(1.6, 1))
    _windows(left, frame)
    _times(right, frame)
    left.set_title("a) loss against the rate", loc="left")
    right.set_title("b) best rate, over that of full", loc="left")
    handles, labels = (some + more for some, more in zip(*map(_legend, (left, right)), strict=True))
    figure.legend(handles, labels, loc="outside upper left", ncols=3)
    return figure


def _legend(ax: "Axes") -> tuple[list[Any], list[Any]]:
    return ax.get_legend_handles_labels()


def _windows(ax: "Axes", frame: pd.DataFrame) -> None:
    """Validation loss against the rate, a line per arm, with a mark under its tuned rate."""
    found, lowest = tuned(frame), frame[LOSS].min()
    for arm, colour in COLOURS.items():
        own = named(frame)[named(frame)["arm"] == arm]
        line = own.groupby("optim.lr")[LOSS].agg(whole_mean)
        ax.plot(line.index, line, "o-", color=colour, ms=4, label=arm)
        if arm in found.index:
            ax.plot(found["tuned"][arm], lowest - 0.03, "^", color=colour, ms=5)
    ax.plot([], [], "^", color="0.4", ms=5, label="vertex of a parabola")
    ax.set(xscale="log", xlabel="lr (lr$_A$ = lr$_B$)", ylabel="validation loss")
    plotting.show_lowest(ax, [lowest - 0.03, *frame[LOSS]])


def _times(ax: "Axes", frame: pd.DataFrame) -> None:
    arms = [THEIRS, OURS]
    for place, arm in enumerate(arms):
        found = times(frame, arm)
        ends = [[found.estimate - found.low], [found.high - found.estimate]]
        ax.errorbar([found.estimate], [place], xerr=ends, fmt="o", color=COLOURS[arm], ms=5)
    ax.axvline(PAPER, color="0.4", lw=1, ls="--", label="10 times (Schulman et al.)")
    ax.set_xscale("log")
    ax.set_xlim(2, 300)
    plotting.label_powers(ax.xaxis, [3, 10, 30, 100])
    ax.set_yticks(range(len(arms)), [arm.partition(", ")[2].replace(", ", "\n") for arm in arms])
    ax.set_ylim(-0.6, len(arms) - 0.4)


def caption(frame: pd.DataFrame) -> str:
    return (
        f"{shared(frame)}, λ = 1, {captions.seeds(frame)}. Rates a factor of 2 apart; triangles: the lowest point of a "
        f"parabola through the best rate and its neighbours. b: 95% interval of the noise between seeds, "
        f"{seed_noise(with_settings(frame)):.3f} nats a loss. {captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per arm: its tuned rate, how many times that of full fine-tuning this is, and its lowest loss."""
    found, rows = tuned(frame), []
    for arm, own in named(frame).groupby("arm", sort=False):
        rate = found["tuned"].get(arm, np.nan)
        over = times(frame, str(arm))
        ends = "" if arm == FULL else f"{over.estimate:.1f} [{over.low:.1f}, {over.high:.1f}]"
        losses = own.groupby("optim.lr")[LOSS].agg(whole_mean)
        rows.append(
            {
                "arm": arm,
                "tuned rate": f"{rate:.2e}",
                "times that of full": ends,
                "lowest loss": round(float(losses.min()), 4),
                "interior": interior(own),
            }
        )
    return pd.DataFrame(rows)


def row_keys(frame: pd.DataFrame) -> pd.DataFrame:
    return named(frame)[["arm"]]


def questions(frame: pd.DataFrame) -> list[Question]:
    claims = [Claim(THEIRS.partition(", ")[2], times(frame, THEIRS), "10x", PAPER, exact=True)]
    text = f"how many times full fine-tuning's best rate is LoRA's ({captions.tasks(frame)})?"
    return [Question(text, "LoRA Without Regret", "x", claims)]


if __name__ == "__main__":
    figures.main(__file__)
