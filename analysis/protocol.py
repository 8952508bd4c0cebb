"""The study `protocol`: what LoRA+'s protocol reports on our grid, what it reports of nothing, and fresh seeds.

`python analysis/protocol.py`: results/{protocol,lr_grid,ratio}.csv -> figures/protocol.{png,pdf,txt}. LoRA+ (Figs
3 and 4) compares the best pair (lr_A, lr_B) of a grid with the best pair of nearly equal rates on the split and the
seeds that chose them. A maximum over many noisy pairs exceeds one over a few, whatever λ does.
"""

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures, study_module
from loralab.studies.intervals import POOLED, forest
from loralab.studies.pooled import Pooled, pooled_gain
from loralab.studies.questions import Question, gain
from loralab.studies.ratios import BANDS
from loralab.studies.stats import Interval
from loralab.studies.tuned_rates import fresh_noise

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from loralab.studies.stats import Array
    from loralab.studies.tables import Tables

AXES = ["seed", "task", "lora.init", "lora.ratio", "optim.lr", *captions.SETTING]
SCORES = ["validation/loss", "validation/accuracy", "test/loss", "test/accuracy"]
KEPT = ["hash", "stage", *AXES, "status", *SCORES, "seconds", "commit", "diff"]
SETTING = ["task", "lora.init"]
SPLIT = "validation/accuracy"  # chooses the pairs, and is what the protocol reports
NEARLY_EQUAL = (1.0, 1.25)  # λ of equal rates, in LoRA+
DRAWS = 20_000
REPORTED, NOTHING, FRESH = (
    "reported by LoRA+'s protocol",
    "reported where λ does nothing",
    "the same pairs on fresh seeds",
)


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run, with the test examples that it got right."""
    runs: pd.DataFrame = tables.runs[KEPT]
    return runs.assign(correct=[tables.correct(run) for run in tables.runs["run"]])


@functools.cache
def committed(study: str) -> pd.DataFrame:
    """The committed CSV of a study."""
    return pd.read_csv(study_module.ANALYSIS / "results" / f"{study}.csv")


def planes(frame: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """By task and init of the frame, the pairs of lr_grid, one row each, the best on the choosing split first."""
    there = set(frame[SETTING].itertuples(index=False, name=None))
    ordered = committed("lr_grid").sort_values([SPLIT, "validation/loss"], ascending=[False, True], kind="stable")
    return {(str(key[0]), str(key[1])): rows for key, rows in ordered.groupby(SETTING) if key in there}


def equal(pairs: pd.DataFrame) -> "pd.Series[bool]":
    return pairs["lora.ratio"].between(*NEARLY_EQUAL)


def chosen(plane: pd.DataFrame) -> pd.DataFrame:
    """The best pair, and the best of nearly equal rates."""
    return pd.concat([plane.head(1), plane[equal(plane)].head(1)])


def reported(plane: pd.DataFrame, metric: str = SPLIT) -> float:
    """The best pair's score minus that of the best pair of nearly equal rates, on the seed that chose them."""
    best, base = chosen(plane)[metric]
    return float(best - base)


@functools.cache
def noise() -> float:
    """Of an accuracy on the choosing split: its spread between seeds, less what a seed does to all λ (`ratio`)."""
    found = [fresh_noise(rows, "lora.ratio", SPLIT) for _, rows in committed("ratio").groupby(SETTING)]
    return float(np.sqrt(np.mean(np.square(found))))


def of_nothing(plane: pd.DataFrame, random: np.random.Generator, seeds: int = 1) -> "Array":
    """Draws of what the protocol reports where pairs with the same product lr_A lr_B are equally good.

    The expected accuracy of a product is the mean of its pairs in the plane; seeds: that a pair's score is the mean of.
    Products are twice as dense off the diagonal of equal rates. On lr_grid that is a third of the mean of 1.06 points:
    from the pairs whose product is on the diagonal come .69.
    """
    product = np.log2(plane["optim.lr"] ** 2 * plane["lora.ratio"]).round(3)
    level = plane.groupby(product)[SPLIT].transform("mean").to_numpy(dtype=float)
    scores = level + noise() / np.sqrt(seeds) * random.standard_normal((DRAWS, len(level)))
    gains: Array = scores.max(axis=1) - scores[:, equal(plane)].max(axis=1)
    return gains


def nothing(frame: pd.DataFrame, seeds: int = 1) -> list[Interval]:
    """`of_nothing` of each setting, and of their mean: the mean and the range of 95% of the draws."""
    random = np.random.default_rng(0)
    found = []
    draws = [of_nothing(plane, random, seeds) for plane in planes(frame).values()]
    for each in (*draws, np.mean(draws, axis=0)):
        low, high = np.quantile(each, [0.025, 0.975]).tolist()
        found.append(Interval(float(each.mean()), low, high, DRAWS, float("nan")))
    return found


def compared(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs with their arm as `pair`: best or equal."""
    return frame.assign(pair=np.where(equal(frame), "equal", "best"))


def on_fresh_seeds(frame: pd.DataFrame) -> Pooled:
    """The gain of the best pair over the best of nearly equal rates, on seeds that chose nothing."""
    return pooled_gain(compared(frame), "best", "equal", arm="pair", by=SETTING, metric="test/accuracy")


def lines(frame: pd.DataFrame) -> dict[str, list[Interval]]:
    """By what is drawn, the gain in each setting and their mean."""
    once = [reported(plane) for plane in planes(frame).values()]
    found = on_fresh_seeds(frame)
    return {
        REPORTED: [Interval(gain, np.nan, np.nan, 1, np.nan) for gain in (*once, float(np.mean(once)))],
        NOTHING: nothing(frame),
        FRESH: [*(found.settings[key] for key in planes(frame)), found.effect],
    }


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    names = [f"{captions.NAMES.get(task, task)}, init {init}" for task, init in planes(frame)]
    figure, ax = plt.subplots(figsize=(plotting.DOUBLE, 0.42 * len(names) + 1.3))
    bands: dict[str, Any] = BANDS["test/accuracy"]
    forest(ax, [*names, f"mean, {POOLED}"], lines(frame), **bands)
    ax.axhline(len(names) - 0.5, color="0.4", lw=0.8)
    ax.set_xlabel("best pair (lr$_A$, lr$_B$) over best pair of equal rates (points of accuracy)")
    ax.set_title("the best of 63 noisy runs beats the best of 7, whatever λ does")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure


def caption(frame: pd.DataFrame) -> str:
    return (
        f"{captions.setting(frame)}. Reported: one seed, best of 63 pairs against best of 7, on the split that chose "
        f"them. λ does nothing: pairs of one lr_A lr_B are equal but for the noise between seeds; 95% of {DRAWS:,} "
        f"draws. Fresh: {captions.seeds(frame)}, test split, 95%. {captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per setting: the chosen pairs and the gains in points; three: where three seeds choose and report."""
    found = on_fresh_seeds(frame)
    once, thrice = nothing(frame), nothing(frame, seeds=3)
    rows = []
    for (key, plane), one, three in zip(planes(frame).items(), once, thrice, strict=False):
        pairs, fresh = chosen(plane), found.settings[key]
        best, base = (f"{lr:g}, λ = {of:g}" for lr, of in pairs[["optim.lr", "lora.ratio"]].itertuples(index=False))
        gains = {"best pair": best, "best equal": base, "reported": _points(reported(plane))}
        gains |= {"the same runs, test": _points(reported(plane, "test/accuracy"))}
        gains |= {"λ does nothing": _points(one.estimate), "three seeds": _points(three.estimate)}
        gains |= {"fresh seeds": f"{_points(fresh.estimate)} [{_points(fresh.low)}, {_points(fresh.high)}]"}
        rows.append({"task": key[0], "init": key[1], **gains})
    return pd.DataFrame(rows)


def _points(share: float) -> str:
    return f"{100 * share:+.2f}"


def questions(frame: pd.DataFrame) -> list[Question]:
    """The claim's text has what the protocol itself reports, on the seed and the split that chose the pairs."""
    itself = float(np.mean([reported(plane) for plane in planes(frame).values()]))
    words = f"best pair over best equal pair; on the seed that chose them {_points(itself)}"
    runs = compared(frame)
    found = gain(runs, "best", "equal", arm="pair", by=SETTING, text=words, paper="1 to 2%", number=0.01)
    text = "do the pairs that LoRA+'s protocol prefers gain accuracy on fresh seeds?"
    return [Question(text, "LoRA+, abstract", "points", [found])]


if __name__ == "__main__":
    figures.main(__file__)
