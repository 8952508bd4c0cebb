"""The study `batch`: loss and tuned rate against the batch at equal examples, for LoRA, λ = 16 and full fine-tuning.

`python analysis/batch.py`: results/batch.csv -> figures/batch.{png,pdf} (LoRA Without Regret, Schulman et al. 2025)
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures
from loralab.studies.arms import interior
from loralab.studies.minima import vertex
from loralab.studies.questions import Claim, Question
from loralab.studies.stats import Interval, slope
from loralab.studies.thinned_curves import curve_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

LOSS = "validation/loss"
SCORES = [LOSS, "validation/accuracy", "test/loss", "test/accuracy", "train/loss"]
AXES = ["seed", "task", "method", "lora.init", "lora.ratio", "optim.lr", "train.eval_every", *captions.SETTING]
KEPT = ["hash", "stage", *AXES, "status", *SCORES, "seconds", "commit", "diff"]
LORA, PLUS, FULL = "LoRA, λ = 1", "LoRA+, λ = 16", "full fine-tuning"
COLOURS = dict(zip((LORA, PLUS, FULL), plotting.COLOURS, strict=False))
SOURCE = "LoRA Without Regret"
MIDDLE = 32  # the batch whose tuned rate is 1 in the figure


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run, with its validation curve."""
    return tables.runs[[*KEPT, *curve_columns(tables.runs)]]


def windows(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per method, batch and seed: log2 of the tuned rate, and the lowest loss of its rates.

    Tuned: the vertex of the parabola through the best rate and its neighbours; NaN if the best is at its window's end.
    """
    rows = []
    for (method, batch, seed), own in named(frame).groupby(["arm", "train.batch_size", "seed"]):
        own = own.sort_values("optim.lr")
        tuned = vertex(np.log2(own["optim.lr"].astype(float)), own[LOSS])
        rows.append({"arm": method, "batch": batch, "seed": seed, "tuned": tuned, "lowest": own[LOSS].min()})
    return pd.DataFrame(rows)


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the name of each row's arm."""
    full = frame["method"] == "full"
    return frame.assign(arm=np.where(full, FULL, np.where(frame["lora.ratio"] == 1, LORA, PLUS)))


def penalty(found: pd.DataFrame, arm: str) -> Interval:
    """Nats that the lowest loss gains with each doubling of the batch; each seed has its own level."""
    own = found[found["arm"] == arm]
    return slope(np.log2(own["batch"]), own["lowest"], blocks=own["seed"])


def penalty_beyond(found: pd.DataFrame, arm: str, other: str) -> Interval:
    """`penalty` of an arm's loss minus another's, at the same batch and seed."""
    wide = found.pivot(index=["batch", "seed"], columns="arm", values="lowest")
    apart = (wide[arm] - wide[other]).dropna().reset_index(name="apart")
    return slope(np.log2(apart["batch"]), apart["apart"], blocks=apart["seed"])


def rate_exponent(found: pd.DataFrame, arms: list[str]) -> Interval:
    """The slope of log2 of the tuned rate in log2 of the batch; each arm and seed has its own level."""
    own = found[found["arm"].isin(arms)].dropna(subset="tuned")
    return slope(np.log2(own["batch"]), own["tuned"], blocks=own["arm"] + own["seed"].astype(str))


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    found = windows(frame)
    middle = found[found["batch"] == MIDDLE].groupby(["arm", "seed"])["tuned"].first()
    arms = pd.MultiIndex.from_frame(found[["arm", "seed"]])
    found = found.assign(relative=2 ** (found["tuned"] - middle.reindex(arms).to_numpy()))
    figure, (left, right) = plt.subplots(1, 2, figsize=(plotting.DOUBLE, 2.7))
    _lines(left, found, "lowest", "lowest validation loss (nats)")
    left.set_title("a) the loss at the best rate", loc="left")
    _lines(right, found, "relative", f"tuned rate (at {MIDDLE}: 1)")
    right.set_title("b) the best rate", loc="left")
    batches = np.array(sorted(found["batch"].unique()))
    right.plot(batches, np.sqrt(batches / MIDDLE), color="0.4", lw=1, ls=":", label="square-root rule")
    right.set_yscale("log", base=2)
    plotting.label_powers(right.yaxis, [0.25, 0.5, 1, 2, 4])
    if found["seed"].nunique() > 1:
        right.plot([], [], "o", color="0.4", ms=4.5, mfc="none", label="open: second seed")
    figure.legend(*right.get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return figure


def _lines(ax: "Axes", found: pd.DataFrame, column: str, label: str) -> None:
    """A line through the first seed of each arm, and open dots for the others."""
    for arm, colour in COLOURS.items():
        own = found[found["arm"] == arm]
        first = own[own["seed"] == own["seed"].min()]
        others = own[own["seed"] != own["seed"].min()]
        if len(own):
            ax.plot(first["batch"], first[column], "o-", color=colour, ms=4.5, label=arm)
            ax.plot(others["batch"], others[column], "o", color=colour, ms=4.5, mfc="none")
    ax.set_xscale("log", base=2)
    plotting.label_powers(ax.xaxis, sorted(found["batch"].unique()))
    ax.set_xlabel("batch, at 3,200 examples in all")
    ax.set_ylabel(label)


def caption(frame: pd.DataFrame) -> str:
    batches = [f"{n:g}" for n in sorted(frame.loc[frame["method"] == "full", "train.batch_size"].unique())]
    fewer = f" Full fine-tuning: batches of {', '.join(batches)} only." if batches else ""
    return (
        f"{captions.tasks(frame)}, {captions.NAMES.get(frame['model'].iloc[0], frame['model'].iloc[0])}, rates a "
        f"factor of 2 apart in each arm's own window. a: the best of them; b: the vertex of a parabola through it and "
        f"its neighbours. Lines: one seed.{fewer} {captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per arm and batch: steps, the tuned rate, the lowest loss, and whether the best rate is inside."""
    rows, found = [], windows(frame)
    for (arm, batch), own in named(frame).groupby(["arm", "train.batch_size"]):
        of = found[(found["arm"] == arm) & (found["batch"] == batch)]
        rows.append(
            {
                "arm": arm,
                "batch": batch,
                "steps": int(own["train.steps"].iloc[0]),
                "seeds": len(of),
                "tuned rate": float(f"{2 ** of['tuned'].mean():.3g}"),
                "lowest loss": round(of["lowest"].mean(), 4),
                "interior": interior(own),
            }
        )
    return pd.DataFrame(rows)


def row_keys(frame: pd.DataFrame) -> pd.DataFrame:
    return named(frame)[["arm"]].assign(batch=frame["train.batch_size"])


def questions(frame: pd.DataFrame) -> list[Question]:
    found, where = windows(frame), f"({captions.tasks(frame)}, 3,200 examples)"
    more, less = penalty_beyond(found, LORA, FULL), penalty_beyond(found, LORA, PLUS)
    text = "does LoRA's loss rise more than full fine-tuning's with each doubling of the batch"
    power = Claim("lr_A as a power of the batch", rate_exponent(found, [LORA, PLUS]), "1/2", 0.5, exact=True)
    return [
        Question(f"{text} {where}?", SOURCE, "nats", [Claim("λ = 1", more, "rises more")]),
        Question(f"does λ = 16 lessen that rise {where}?", "in no paper", "nats", [Claim("λ = 1 less λ = 16", less)]),
        Question(f"how does LoRA's tuned rate grow {where}?", "the square-root rule for Adam", "", [power]),
    ]


if __name__ == "__main__":
    figures.main(__file__)
