"""The study `subspace_ratio`: whether λ changes which directions are learned.

`python analysis/subspace_ratio.py`: results/subspace_ratio.csv -> figures/subspace_ratio.{png,pdf} (in no paper)
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures, subspaces
from loralab.studies.intervals import dots
from loralab.studies.questions import Claim, Question
from loralab.studies.stats import Interval, ratio_interval
from loralab.studies.subspaces import AXES, KEPT, Line, Pair, by_seed, interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

__all__ = ["AXES", "KEPT"]

ADVICE = 16  # λ of the paper
LEARNED = ("A - A_0", "left")  # sides that do not contain the initialisation


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
    figure, axes = plt.subplots(len(subspaces.MAPS), 1 + len(LEARNED), figsize=(plotting.DOUBLE, 4.4))
    for row, which in zip(axes, subspaces.MAPS, strict=True):
        _relative(row[0], frame, which, last)
        row[0].set_title(f"{which}: between λ, over within")
        row[0].set_ylabel("ratio (1: same directions)")
        for ax, side in zip(row[1:], LEARNED, strict=True):
            names = {"both λ = 1": within(1), f"both λ = {last:g}": within(last), "one run at each λ": between(last)}
            kinds = zip(names.items(), plotting.COLOURS, strict=False)
            subspaces.lines(ax, frame, which, [Line(name, kind, side, colour) for (name, kind), colour in kinds])
            ax.set_title(f"{which}: {subspaces.TITLES[side]}")
        row[1].set_ylabel("overlap, less chance")
    for ax in axes[-1]:
        ax.set_xlabel("first i directions")
    left, right = (ax.get_legend_handles_labels() for ax in axes[0][:2])
    figure.legend(*left, loc="outside upper left")
    figure.legend(*right, loc="outside upper right", ncols=3)
    return figure


def _relative(ax: "Axes", frame: pd.DataFrame, which: str, ratio: float) -> None:
    """`relative` against i, a line for each side that is learned."""
    ax.axhline(1, color="0.4", lw=0.8)
    places = sorted(frame["i"].dropna().unique())
    for at, side in enumerate(LEARNED):
        found = [relative(frame, ratio, (which,), side, i) for i in places]
        shifted = [i * 2 ** (0.08 * (at - 0.5)) for i in places]
        dots(ax, shifted, found, plotting.COLOURS[at + 4], subspaces.TITLES[side], join="-")
    ax.set_xscale("log", base=2)
    plotting.label_powers(ax.xaxis, places)


def caption(frame: pd.DataFrame) -> str:
    return (
        f"{subspaces.setting(frame)}, {' and '.join(subspaces.ranks(frame))}, best rates. Overlap of the first i "
        f"directions of two runs with different seeds, both at one λ or one at each; 95% over "
        f"{captions.seeds(frame)} (Student t). Left: over the geometric mean of both within. "
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
