"""The study `subspace_seed`: the directions that runs with different seeds share, compared with random subspaces.

`python analysis/subspace_seed.py`: results/subspace_seed.csv -> figures/subspace_seed.{png,pdf} (LoRA, Figs 4, 7)
"""

from typing import TYPE_CHECKING

import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures, subspaces
from loralab.studies.questions import Claim, Question
from loralab.studies.stats import paired
from loralab.studies.subspaces import AXES, KEPT, Line, Pair, by_seed, interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

__all__ = ["AXES", "KEPT"]

LINES = (
    Line("$A$", "other", "A", plotting.COLOURS[0]),
    Line("$A - A_0$", "other", "A - A_0", plotting.COLOURS[1]),
    Line("left of $\\Delta W$", "other", "left", plotting.COLOURS[2]),
    Line("$A_0$, untrained", "untrained", "A", "0.5", "--"),
    Line("random", "random", "A", plotting.COLOURS[3], "--"),
)


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run, then phi(i, j) of each seed against the next, trained and untrained, and of random subspaces."""
    at = tables.runs.set_index("seed")["hash"]
    pairs = []
    for seed, after in subspaces.following(at.index).items():
        pairs += [Pair("other", at[seed], at[after], layers=True), Pair("untrained", at[seed], at[after])]
    return subspaces.compare_pairs(tables, pairs, random=True)


def excess(frame: pd.DataFrame, kind: str, which: str, side: str) -> "pd.Series[float]":
    """||U^T V||_F^2 of all r directions of both minus chance, r^2 / d: the number of shared directions."""
    phi, size = by_seed(frame, kind, which, side), int(frame["i"].max())
    rows = frame[(frame["map"] == which) & (frame["side"] == side) & (frame["i"] == size) & (frame["j"] == size)]
    more: pd.Series[float] = size * (phi[size, size] - float(rows["chance"].iloc[0]))
    return more


def draw(frame: pd.DataFrame) -> "Figure":
    title = "Directions that two runs with different seeds share (dashed: before training):"
    return subspaces.panels(frame, title, "other", LINES[:-1], ("first i of one run", "first j of the other"))


def caption(frame: pd.DataFrame) -> str:
    return (
        f"{subspaces.setting(frame)}, {' and '.join(subspaces.ranks(frame))}. Overlap of the first i directions of a "
        f"run and the first j of one with another seed: the share of the smaller set in the larger, less chance "
        f"(max(i, j) / d); mean over layers, 95% over {captions.seeds(frame)}. {captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per map, kind of pair and side: phi(1, 1), phi(8, 8), and the directions shared beyond chance."""
    rows = []
    for which in subspaces.MAPS:
        for line in LINES:
            phi = by_seed(frame, line.kind, which, line.side)
            texts = {f"phi({i}, {i})": subspaces.with_interval(interval(phi[i, i])) for i in (1, 8)}
            more = interval(excess(frame, line.kind, which, line.side))
            texts["directions beyond chance"] = subspaces.with_interval(more)
            rows.append({"map": which, "pairs": line.kind, "side": line.side} | texts)
    return pd.DataFrame(rows)


def questions(frame: pd.DataFrame) -> list[Question]:
    """The paper's claim is about A; the left vectors do not contain the initialisation."""
    claims = []
    for side, words in (("A", "A"), ("left", "the left singular vectors of ΔW")):
        q, v = (excess(frame, "other", which, side).dropna() for which in subspaces.MAPS)
        claims.append(Claim(words, paired(q, v), "more for q"))
    return [Question("do two seeds share more for q than for v, beyond chance?", "LoRA, Fig 4", "directions", claims)]


if __name__ == "__main__":
    figures.main(__file__)
