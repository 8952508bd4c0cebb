"""The study `rank_ratio`: the best ratio λ against the rank, with lr_A tuned for each (rank, λ).

`python analysis/rank_ratio.py`: results/rank_ratio.csv -> figures/rank_ratio.{png,pdf} (LoRA+, Figs 14-16)
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures
from loralab.studies.arms import interior
from loralab.studies.intervals import LINES, dots
from loralab.studies.questions import Claim, Question
from loralab.studies.ratios import difference, forests, lowest, optimum, ratio_gains, ratios
from loralab.studies.stats import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

AXES = ["seed", "task", "lora.init", "lora.ratio", "optim.lr", *captions.SETTING]
SCORES = ["validation/loss", "test/loss", "test/accuracy"]
KEPT = ["hash", "stage", *AXES, "status", *SCORES, "seconds", "commit", "diff"]
METRIC = "test/loss"


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run."""
    return tables.runs[KEPT]


def fresh(frame: pd.DataFrame, rank: float) -> pd.DataFrame:
    """Test losses of a rank on fresh seeds: one row per seed, one column per ratio."""
    rows = frame[(frame["stage"] == "confirm") & (frame["lora.rank"] == rank)]
    return rows.pivot(index="seed", columns="lora.ratio", values=METRIC)


def ranks_of(frame: pd.DataFrame) -> Iterator[tuple[float, pd.DataFrame]]:
    """Each rank and its rows."""
    for rank in sorted(frame["lora.rank"].unique()):
        yield rank, frame[frame["lora.rank"] == rank]


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    ranks = dict(ranks_of(frame))
    height = 0.12 * len(ranks) * (len(ratios(frame)) - 1) + 1.1
    figure, axes = plt.subplots(1, 3, figsize=(plotting.DOUBLE, height), width_ratios=(1.2, 1.2, 1))
    forests(axes[:2], {f"rank {rank:g}": rows for rank, rows in ranks.items()})
    for place, (rank, colour) in enumerate(zip(ranks, LINES, strict=False)):
        _best(axes[2], place, best(ranks[rank]), colour, ratios(frame))
    axes[2].axvline(1, color="0.4", lw=0.8, zorder=-1)
    axes[2].set_xscale("log", base=2)
    axes[2].set(xlabel="best λ (by loss)", title="arrow: beyond the λ tried")
    plotting.label_powers(axes[2].xaxis, [ratio for ratio in (1, 4, 16, 64) if ratio in ratios(frame)])
    axes[2].set_yticks(range(len(ranks)), [f"rank {rank:g}" for rank in ranks])
    axes[2].invert_yaxis()
    return figure


def _best(ax: "Axes", place: int, found: Interval, colour: str, tried: list[float]) -> None:
    """A rank's best λ; its interval ends in an arrow where it goes on beyond the λ that were tried."""
    low, high = min(max(found.low, tried[0]), found.estimate), max(min(found.high, tried[-1]), found.estimate)
    dots(ax, [place], [replace(found, low=low, high=high)], colour, across=True)
    for end, shown, mark in ((found.low, low, "<"), (found.high, high, ">")):
        if np.isfinite(end) and end != shown:
            ax.plot(shown, place, mark, color=colour, ms=5)


def best(rows: pd.DataFrame) -> Interval:
    """The ratio at the lowest point of a parabola through the mean losses of a rank (`optimum`)."""
    found = optimum(rows)
    at, low, high = (float(2.0**each) for each in (found.at, found.low, found.high))
    return Interval(at, low, high, rows["seed"].nunique(), found.p)


def caption(frame: pd.DataFrame) -> str:
    confirm = frame[frame["stage"] == "confirm"]
    return (
        f"{captions.tasks(frame)}, {captions.setting(frame)}, init {'/'.join(frame['lora.init'].unique())}, the best "
        f"of five rates for each. Differences from λ = 1 on {captions.seeds(confirm)}, paired, 95%. Right: lowest "
        f"point of a parabola in log λ, 95% (Fieller). {captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per rank: the parabola's minimum, the best ratio tried, and its difference in loss from λ = 1."""
    rows = []
    for rank, of in ranks_of(frame):
        means, found = fresh(frame, rank).mean(skipna=False), optimum(of)
        best = float(means.index[int(means.argmin())])
        less = difference(of, best, METRIC)
        rows.append(
            {
                "rank": rank,
                "best ratio tried": best,
                "fitted": f"{2.0**found.at:.2g} [{2.0**found.low:.2g}, {2.0**found.high:.2g}]",
                **{f"λ = {ratio:g}": round(loss, 4) for ratio, loss in means.items()},
                "best less λ = 1": f"{less.estimate:.4f} [{less.low:.4f}, {less.high:.4f}]",
                "interior": all(interior(of, ratio) for ratio in means.index),
            }
        )
    return pd.DataFrame(rows)


def questions(frame: pd.DataFrame) -> list[Question]:
    paper = "ranks 4, 8, 16: above 1"
    claims = [Claim("all ranks", lowest(frame, ["lora.rank"]), paper)]
    gains = ratio_gains(frame, ["lora.rank"])
    where = f"({captions.tasks(frame)}, init A)"
    return [
        Question(
            f"does a λ above 1 gain accuracy over λ = 1, over the ranks {where}?", "LoRA+, abstract", "points", gains
        ),
        Question(f"at which λ is the test loss lowest {where}?", "LoRA+, Figs 14-16", "doublings", claims),
    ]


if __name__ == "__main__":
    figures.main(__file__)
