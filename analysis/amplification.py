"""The study `amplification`: the part of W in the directions of delta W, and how much delta W amplifies it.

`python analysis/amplification.py`: results/amplification.csv -> figures/amplification.{png,pdf} (LoRA, Table 7 and H.4)
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.inspect import spectra
from loralab.studies import captions, figures, subspaces
from loralab.studies.intervals import PAPER as PAPERS
from loralab.studies.intervals import dots
from loralab.studies.questions import Claim, Question
from loralab.studies.stats import Interval, ratio_interval
from loralab.studies.subspaces import AXES, SCORES

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from loralab.inspect.updates import Update
    from loralab.studies.tables import Tables

IN_DELTA, IN_W, AT_RANDOM, NORM = "in delta W", "in W", "at random", "delta W"
NORMS = [NORM, IN_DELTA, IN_W, AT_RANDOM]
KEPT = ["hash", "stage", *AXES, "status", *SCORES, "kind", "map", "layer", *NORMS, "seconds", "commit", "diff"]
LABELS = {
    NORM: "$\\Delta W$",
    IN_DELTA: "W in $\\Delta W$'s directions",
    IN_W: "W in its top r directions",
    AT_RANDOM: "W in random directions",
}
DRAWS = 10  # random draws of directions
FEW, MANY = 4, 64  # the ranks of the paper's table
PAPER = {4: 21.5, 64: 1.9}  # its amplification of q, at layer 48 of GPT-3


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run, then one per layer of it: ||delta W||_F, and ||U^T W V||_F with each kind of U and V."""
    done, rng = subspaces.finished(tables), np.random.default_rng(0)
    weights = subspaces.frozen(done.values())
    svds = {name: (W, spectra.left_basis(W), spectra.right_basis(W)) for name, W in weights.items()}
    found = []
    for digest, run in done.items():
        rows = []
        for name, update in subspaces.updates(run).items():
            number, which = subspaces.layer_and_map(name)
            rows.append({"map": which, "layer": str(number)} | measured(update, *svds[name], rng))
        found.append(pd.DataFrame(rows).assign(kind="layer", hash=digest))
    return subspaces.scored(tables, found, KEPT)


def measured(
    update: "Update", W: "NDArray[Any]", left: "NDArray[Any]", right: "NDArray[Any]", rng: np.random.Generator
) -> dict[str, float]:
    """The norms of one layer; left, right: all singular vectors of W. The random norm is the mean of DRAWS draws."""
    U, S, V = update.svd()
    r = len(S)
    drawn = [
        spectra.projected_norm(W, spectra.random_basis(len(U), r, rng), spectra.random_basis(len(V), r, rng))
        for _ in range(DRAWS)
    ]
    return {
        NORM: float(np.linalg.norm(S)),
        IN_DELTA: spectra.projected_norm(W, U, V),
        IN_W: spectra.projected_norm(W, left[:, :r], right[:, :r]),
        AT_RANDOM: float(np.mean(drawn)),
    }


def norms(frame: pd.DataFrame, rank: float, which: str) -> pd.DataFrame:
    """One row per seed, one column per norm: the geometric mean over the layers, because ratios are compared."""
    own = frame[(frame["kind"] == "layer") & (frame["lora.rank"] == rank) & (frame["map"] == which)]
    logs = own[NORMS].apply(np.log).groupby(own["seed"]).mean()
    return logs.apply(np.exp)


def ratio(some: "pd.Series[float]", other: "pd.Series[float]", null: float = 1.0) -> Interval:
    """The ratio over the seeds that both have; paired t over logarithms."""
    both = pd.concat([some, other], axis=1, join="inner").dropna()
    return ratio_interval(both.iloc[:, 0], both.iloc[:, 1], null=null)


def size(values: "pd.Series[float]") -> Interval:
    """The geometric mean over the seeds, with Student's interval over logarithms."""
    return ratio_interval(values, np.ones(len(values)))


def ranks(frame: pd.DataFrame) -> list[float]:
    return sorted(frame["lora.rank"].unique())


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(plotting.DOUBLE, 3.1))
    found, (first, *_) = ranks(frame), subspaces.MAPS
    for ax, which in zip(axes, subspaces.MAPS, strict=False):
        of = [norms(frame, rank, which) for rank in found]
        for name, colour, style, label in (
            (IN_DELTA, plotting.COLOURS[0], "-", "W in $\\Delta W$'s directions"),
            (AT_RANDOM, "0.5", "--", "W in random directions"),
        ):
            dots(ax, found, [ratio(each[NORM], each[name]) for each in of], colour, label, join=style)
        ax.set_title(f"amplification of {which}")
        if which == first:
            ax.plot(
                list(PAPER), list(PAPER.values()), "s", color=PAPERS, mfc="none", label="GPT-3: q only (LoRA, Table 7)"
            )
    axes[0].set_ylabel("$\\|\\Delta W\\|_F$ / $\\|W\\|_F$ in r directions")
    of = [norms(frame, rank, first) for rank in found]
    for name, colour in zip(NORMS, ("black", plotting.COLOURS[0], plotting.COLOURS[2], "0.5"), strict=True):
        style = "--" if name == AT_RANDOM else "-"
        dots(axes[-1], found, [size(each[name]) for each in of], colour, LABELS[name], join=style)
    axes[-1].set(title=f"norms of {first}", ylabel="Frobenius norm")
    for ax in axes:
        ax.set(xscale="log", yscale="log", xlabel="rank")
        plotting.label_powers(ax.xaxis, found)
    labels = [ax.get_legend_handles_labels() for ax in (axes[0], axes[-1])]
    every = {label: handle for each in labels for handle, label in zip(*each, strict=True)}
    figure.legend(list(every.values()), list(every), loc="outside upper left", ncols=3)
    return figure


def caption(frame: pd.DataFrame) -> str:
    return (
        f"{subspaces.setting(frame)}. Directions: the first r singular vectors of delta W or W, or random (mean of "
        f"{DRAWS} draws). Geometric means over layers and {captions.seeds(frame)}, 95% (Student t over logarithms). "
        f"{captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """LoRA's Table 7 for each map and rank, with the amplification and the norm for random directions."""
    rows = []
    for which in subspaces.MAPS:
        for rank in ranks(frame):
            of = norms(frame, rank, which)
            texts: dict[str, Any] = {name: f"{size(of[name]).estimate:.3g}" for name in NORMS}
            texts["amplification"] = subspaces.with_interval(ratio(of[NORM], of[IN_DELTA]))
            texts["of random directions"] = subspaces.with_interval(ratio(of[NORM], of[AT_RANDOM]))
            rows.append({"map": which, "r": rank} | texts)
    return pd.DataFrame(rows)


def questions(frame: pd.DataFrame) -> list[Question]:
    """About q, as in the paper's table, whose numbers are of GPT-3."""
    if not {FEW, MANY} <= set(ranks(frame)):
        return []
    few, many = (norms(frame, rank, "q") for rank in (FEW, MANY))
    less = ratio(few[NORM] / few[IN_DELTA], many[NORM] / many[IN_DELTA])
    claims = [
        Claim(f"amplification at r = {FEW} over that at r = {MANY}", less, "21.5 and about 2", 10.75),
        Claim("W in ΔW's directions over random ones", ratio(few[IN_DELTA], few[AT_RANDOM]), "0.32 and 0.02", 16.0),
        Claim("W in its own top directions over ΔW's", ratio(few[IN_W], few[IN_DELTA]), "21.67 and 0.32", 67.7),
    ]
    return [Question(f"which directions of W does ΔW amplify (q, r = {FEW})?", "LoRA, Table 7", "x", claims)]


if __name__ == "__main__":
    figures.main(__file__)
