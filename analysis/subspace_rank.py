"""The study `subspace_rank`: the directions that runs with a small and a large rank share.

`python analysis/subspace_rank.py`: results/subspace_rank.csv -> figures/subspace_rank.{png,pdf} (LoRA, Figs 3, 6)
"""

from typing import TYPE_CHECKING

import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures, subspaces
from loralab.studies.questions import Claim, Question
from loralab.studies.subspaces import AXES, KEPT, Line, Pair, block, by_seed, interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

__all__ = ["AXES", "KEPT"]

LINES = (
    Line("$A$", "other", "A", plotting.COLOURS[0]),
    Line("$A - A_0$", "other", "A - A_0", plotting.COLOURS[1]),
    Line("left of $\\Delta W$", "other", "left", plotting.COLOURS[2]),
    Line("$A$, same seed in both", "same", "A", plotting.COLOURS[3], "--"),
    Line("$A_0$, untrained", "untrained", "A", "0.5", "--"),
)


def pairs(runs: pd.DataFrame) -> list[Pair]:
    """The small rank at a seed with the large one at the next (`other`, `untrained`) or at the same seed (`same`)."""
    at = runs.set_index(["lora.rank", "seed"])["hash"]
    small, large = runs["lora.rank"].min(), runs["lora.rank"].max()
    found = []
    for seed, after in subspaces.following(runs["seed"]).items():
        one, other, same = at[small, seed], at[large, after], at[large, seed]
        found += [Pair("other", one, other, layers=True), Pair("untrained", one, other), Pair("same", one, same)]
    return found


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run, then phi(i, j) of the pairs; i is of the smaller rank."""
    return subspaces.compare_pairs(tables, pairs(tables.runs))


def draw(frame: pd.DataFrame) -> "Figure":
    small, *_, large = subspaces.ranks(frame)
    title = f"Directions that runs of {small} and of {large} share (solid: seeds differ; dashed: controls):"
    return subspaces.panels(frame, title, "other", LINES, (f"first i of {small}", f"first j of {large}"))


def caption(frame: pd.DataFrame) -> str:
    small, *_, large = subspaces.ranks(frame)
    return (
        f"{subspaces.setting(frame)}. Overlap of the first i directions of {small} and the first j of {large}: the "
        f"share of the smaller set that lies in the larger, less chance; mean over layers; 95% over "
        f"{captions.seeds(frame)} (Student t). {captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per map, kind of pair and side: phi of the first direction, of directions 2 to r, and of all r."""
    size = int(frame["i"].max())
    rows = []
    for which in subspaces.MAPS:
        for line in (*LINES, Line("", "same", "A - A_0", ""), Line("", "same", "left", "")):
            phi = by_seed(frame, line.kind, which, line.side)
            values = {"phi(1, 1)": phi[1, 1], f"2 to {size}": block(phi, size), f"phi({size}, {size})": phi[size, size]}
            texts = {name: subspaces.with_interval(interval(of)) for name, of in values.items()}
            rows.append({"map": which, "pairs": line.kind, "side": line.side} | texts)
    return pd.DataFrame(rows)


def questions(frame: pd.DataFrame) -> list[Question]:
    """phi(1, 1) of the top directions, and of the rest alone."""
    size, (small, *_, large), claims = int(frame["i"].max()), subspaces.ranks(frame), []
    for side, words in (("A", "A"), ("left", "the left singular vectors of ΔW")):
        for which in subspaces.MAPS:
            top = interval(by_seed(frame, "other", which, side)[1, 1])
            claims.append(Claim(f"the top direction of {words}, {which}", top, "above .5", 0.5))
    for which in subspaces.MAPS:
        rest = interval(block(by_seed(frame, "other", which, "A"), size))
        claims.append(Claim(f"directions 2 to {size} of A, {which}", rest, "mostly noise", 0.0, exact=True))
    return [Question(f"which directions do {small} and {large} share (phi)?", "LoRA, Fig 3", "", claims)]


if __name__ == "__main__":
    figures.main(__file__)
