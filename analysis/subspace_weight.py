"""The study `subspace_weight`: the part of delta W in the top singular directions of W, against the rank.

`python analysis/subspace_weight.py`: results/subspace_weight.csv -> figures/subspace_weight.{png,pdf} (LoRA, Fig 8)
"""

from typing import TYPE_CHECKING

import pandas as pd

from loralab import plotting
from loralab.inspect import spectra
from loralab.studies import captions, figures, subspaces
from loralab.studies.intervals import dots
from loralab.studies.questions import Claim, Question
from loralab.studies.stats import paired
from loralab.studies.subspaces import AXES, KEPT, by_seed, interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

__all__ = ["AXES", "KEPT"]

SIDES = ("right", "left")
TOP = 64  # number of W's directions: for each rank up to it, chance is 64 / d
FEW, USUAL, MANY = 4, 8, 64  # the claims' ranks


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run, then phi(i, j) of W's first i and delta W's first j directions on both sides (kind `weight`)."""
    done = subspaces.finished(tables)
    weights = {
        name: {"right": spectra.right_basis(W), "left": spectra.left_basis(W)}
        for name, W in subspaces.frozen(done.values()).items()
    }
    found = []
    for digest, run in done.items():
        svds = {name: update.svd() for name, update in subspaces.updates(run).items()}
        learned = {name: {"right": svd.V, "left": svd.U} for name, svd in svds.items()}
        rows = subspaces.similarities(weights, learned, {side: side for side in SIDES})
        found.append(rows.assign(kind="weight", hash=digest))
    return subspaces.scored(tables, found, KEPT)


def above_chance(frame: pd.DataFrame, rank: float, which: str, side: str) -> pd.DataFrame:
    """phi(i, r) - max(i, r) / d of W's first i directions and all r of delta W; one row per seed, one column per i."""
    own = frame[(frame["lora.rank"] == rank) & (frame["j"] == rank)]
    phi = by_seed(own, "weight", which, side).droplevel("j", axis=1)
    chance = own[(own["map"] == which) & (own["side"] == side)].groupby("i")["chance"].mean()
    return phi - chance


def ranks(frame: pd.DataFrame) -> list[float]:
    return sorted(frame["lora.rank"].unique())


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    size = (plotting.DOUBLE, 4.2)
    figure, axes = plt.subplots(len(subspaces.MAPS), len(SIDES), figsize=size, sharex=True, squeeze=False)
    for row, which in zip(axes, subspaces.MAPS, strict=True):
        for ax, side in zip(row, SIDES, strict=True):
            _lines(ax, frame, which, side)
            ax.set_title(f"{which}: {side} singular vectors")
        row[0].set_ylabel("overlap of W's first i\nand ΔW's r, less chance")
    for ax in axes[-1]:
        ax.set_xlabel("first i directions of W")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper left", ncols=len(ranks(frame)))
    return figure


def _lines(ax: "Axes", frame: pd.DataFrame, which: str, side: str) -> None:
    """One line per rank, with its intervals over the seeds."""
    import matplotlib as mpl
    import numpy as np

    found = ranks(frame)
    ax.axhline(0, color="0.4", lw=0.8)
    for rank, shade in zip(found, mpl.colormaps["viridis"](np.linspace(0.85, 0, len(found))), strict=True):
        values = above_chance(frame, rank, which, side)
        places = values.columns.to_numpy(dtype=float)
        dots(ax, places, [interval(values[i]) for i in places], mpl.colors.to_hex(shade), f"r = {rank:g}", join="-")
    ax.set_ylim(bottom=min(-0.02, ax.get_ylim()[0]), top=max(0.05, ax.get_ylim()[1]))
    ax.set_xscale("log", base=2)
    plotting.label_powers(ax.xaxis, sorted(frame["i"].dropna().unique()))


def caption(frame: pd.DataFrame) -> str:
    return (
        f"{subspaces.setting(frame)}. Overlap of W's first i singular directions and all r of ΔW: the share of the "
        f"smaller set that lies in the larger, less max(i, r) / d, that of a random ΔW. Mean over layers; 95% over "
        f"{captions.seeds(frame)}. {captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per map, side and rank: phi with W's first r and first TOP directions, minus chance."""
    rows = []
    for which in subspaces.MAPS:
        for side in SIDES:
            for rank in ranks(frame):
                values = above_chance(frame, rank, which, side)
                texts = {
                    "first r of W": subspaces.with_interval(interval(values[rank]), 3),
                    f"first {TOP} of W": subspaces.with_interval(interval(values[TOP]), 3),
                }
                rows.append({"map": which, "side": side, "r": rank} | texts)
    return pd.DataFrame(rows)


def questions(frame: pd.DataFrame) -> list[Question]:
    """About the right singular vectors (input directions), as in section 7; a share of ||ΔW||^2, less chance's."""
    shares, more = [], []
    for which in subspaces.MAPS:
        share = {rank: above_chance(frame, rank, which, "right")[TOP].dropna() for rank in ranks(frame)}
        if USUAL in share:
            shares.append(Claim(f"r = {USUAL}, {which}", interval(share[USUAL]), "more than random"))
        if {FEW, MANY} <= share.keys():
            apart = paired(*(share[rank] for rank in (MANY, FEW)))
            more.append(Claim(f"r = {MANY} less r = {FEW}, {which}", apart, "more with a larger r"))
    text = f"which share of ΔW lies in W's first {TOP} directions, beyond chance?"
    return [Question(text, "LoRA, Fig 8", "", [*shares, *more])] if shares or more else []


if __name__ == "__main__":
    figures.main(__file__)
