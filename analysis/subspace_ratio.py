"""The study `subspace_ratio`: whether λ changes which directions are learned.

`python analysis/subspace_ratio.py`: results/subspace_ratio.csv -> figures/subspace_ratio.{png,pdf} (in no paper)
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures, subspaces
from loralab.studies.questions import Claim, Question
from loralab.studies.stats import Interval, ratio_interval
from loralab.studies.subspaces import AXES, KEPT, Line, Pair, by_seed, interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

__all__ = ["AXES", "KEPT"]

ADVICE = 16  # λ of the paper


def within(ratio: float) -> str:
    return f"λ = {ratio:g}"


def between(ratio: float) -> str:
    return f"λ = 1 and {ratio:g}"


def faked(ratio: float) -> str:
    return f"λ = 1 and {ratio:g}, one seed"


def pairs(runs: pd.DataFrame) -> list[Pair]:
    """Each seed with the next: at one λ, and at λ = 1 and another (in both orders); at one seed: λ = 1 with another."""
    at = runs.set_index(["lora.ratio", "seed"])["hash"]
    found = []
    for seed, after in subspaces.following(runs["seed"]).items():
        for ratio in sorted(runs["lora.ratio"].unique()):
            found.append(Pair(within(ratio), at[ratio, seed], at[ratio, after]))
            if ratio != 1:
                found += [Pair(between(ratio), at[1, seed], at[ratio, after])]
                found += [Pair(between(ratio), at[ratio, seed], at[1, after])]
                found += [Pair(faked(ratio), at[1, seed], at[ratio, seed])]
    return found


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run, then phi(i, i) of the pairs."""
    found = subspaces.compare_pairs(tables, pairs(tables.runs))
    return found[(found["kind"] == "run") | (found["i"] == found["j"])].reset_index(drop=True)


def others(frame: pd.DataFrame) -> list[float]:
    """The values of λ that are compared with 1."""
    return [ratio for ratio in sorted(frame["lora.ratio"].unique()) if ratio != 1]


def relative(frame: pd.DataFrame, ratio: float, maps: tuple[str, ...], side: str, i: int) -> Interval:
    """phi(i, i) between λ = 1 and another λ over the geometric mean of phi within each; below 1: different directions.

    Two noisy views of one subspace give 1, even if one λ is noisier than the other, because cosines multiply. The unit
    is a seed with the next, averaged over layers, maps and the two orders of a pair before the ratio is taken.
    """

    def phi(kind: str) -> "pd.Series[float]":
        each = pd.concat([by_seed(frame, kind, which, side)[i, i] for which in maps], axis=1)
        return each.mean(axis=1, skipna=False)

    both = pd.concat([phi(between(ratio)), phi(within(1)), phi(within(ratio))], axis=1, join="inner").dropna()
    some, one, other = both.to_numpy().T
    return ratio_interval(some, np.sqrt(one * other))


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    last = others(frame)[-1]
    kinds = {within(1): "-", within(last): "-", between(last): "-", faked(last): "--"}
    size = (plotting.DOUBLE, 3.4)
    figure, axes = plt.subplots(len(subspaces.MAPS), 4, figsize=size, sharex=True, width_ratios=[1, 1, 1, 1.1])
    for row, which in zip(axes, subspaces.MAPS, strict=True):
        for ax, side in zip(row, subspaces.SIDES, strict=False):
            found = zip(kinds.items(), plotting.COLOURS, strict=False)
            subspaces.lines(
                ax, frame, which, [Line(kind, kind, side, colour, style) for (kind, style), colour in found]
            )
            ax.set_title(f"{which}: {subspaces.TITLES[side]}")
        row[0].set_ylabel("$\\phi(i, i)$")
        _relative(row[-1], frame, which, last)
        row[-1].set_title(f"{which}: between λ, relative to within")
    for ax in axes[-1]:
        ax.set_xlabel("i")
    axes[0][2].legend(fontsize=5)
    axes[0][-1].legend(fontsize=5)
    return figure


def _relative(ax: "Axes", frame: pd.DataFrame, which: str, ratio: float) -> None:
    """`relative` against i, one line per side."""
    ax.axhline(1, color="0.6", lw=0.6, ls=":")
    places = sorted(frame["i"].dropna().unique())
    for at, side in enumerate(subspaces.SIDES):
        found = [relative(frame, ratio, (which,), side, i) for i in places]
        shifted = [i * 2 ** (0.08 * (at - 1)) for i in places]
        subspaces.with_bars(ax, shifted, found, plotting.COLOURS[at + 4], subspaces.TITLES[side])
    ax.set_ylim(0, 2)


def caption(frame: pd.DataFrame) -> str:
    arms = {within(ratio): frame[frame["lora.ratio"] == ratio] for ratio in [1.0, *others(frame)]}
    return (
        f"{subspaces.setting(frame)}, {' and '.join(subspaces.ranks(frame))}, each λ at the rate that `ratio` selected "
        f"for it. phi(i, i) of runs with different seeds (each of {captions.seeds(frame)} "
        "with the next), both at one λ or one at each; dashed: of one seed, where the initialisation is shared and "
        "fakes overlap. Mean over layers; 95% over seeds (Student t). Chance: i / d. Right: phi between the two λ over "
        "the geometric mean of those within each, which is 1 where both learn one subspace, more or less noisily, and "
        "where no phi is above chance (95%, paired t over logarithms). Each run is in several pairs, so that they are "
        f"not independent and intervals are somewhat too narrow. {subspaces.accuracies(arms)}. "
        f"{captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per map, side, λ and i: phi within λ = 1, within λ, between them, at one seed, and `relative`."""
    rows = []
    for which in subspaces.MAPS:
        for side in subspaces.SIDES:
            for ratio in others(frame):
                kinds = {"within 1": within(1), "within λ": within(ratio), "between": between(ratio)}
                phi = {name: by_seed(frame, kind, which, side) for name, kind in kinds.items()}
                phi["one seed"] = by_seed(frame, faked(ratio), which, side)
                for i in (1, int(frame["i"].max())):
                    texts = {name: subspaces.with_interval(interval(of[i, i])) for name, of in phi.items()}
                    texts["between / within"] = subspaces.with_interval(relative(frame, ratio, (which,), side, i))
                    rows.append({"map": which, "side": side, "λ": ratio, "i": i} | texts)
    return pd.DataFrame(rows)


def questions(frame: pd.DataFrame) -> list[Question]:
    """About all r learned directions. A is left out: it contains its initialisation."""
    size, sides = int(frame["i"].max()), {"left": "ΔW's left singular vectors", "A - A_0": "A - A_0"}
    claims = [
        Claim(words, relative(frame, ADVICE, subspaces.MAPS, side, size), "none", 1.0, exact=True)
        for side, words in sides.items()
    ]
    text = f"do runs at λ = 1 and {ADVICE} share as many of the {size} directions as runs at one λ (q and v)?"
    return [Question(text, "in no paper", "x", claims)]


if __name__ == "__main__":
    figures.main(__file__)
