"""Subspace similarity of updates: phi(i, j) of pairs of runs as rows of a CSV, and its heatmaps and lines.

Used by the studies of section 7 of LoRA (Hu et al. 2021). Measuring reads adapters and imports torch; drawing needs
only the rows.
"""

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from loralab import plotting
from loralab.inspect import spectra
from loralab.store.run_directory import RunDirectory
from loralab.studies import captions
from loralab.studies.arms import shared
from loralab.studies.intervals import dots
from loralab.studies.stats import Interval, mean_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from loralab.inspect.updates import Update
    from loralab.studies.tables import Tables

__all__ = [
    "AXES",
    "KEPT",
    "MAPS",
    "POWERS",
    "SCORES",
    "SIDES",
    "Line",
    "Pair",
    "above_chance",
    "bases",
    "block",
    "by_seed",
    "compare_pairs",
    "finished",
    "following",
    "frozen",
    "interval",
    "layer_and_map",
    "lines",
    "panels",
    "random_like",
    "ranks",
    "scored",
    "setting",
    "similarities",
    "updates",
    "with_interval",
]

Array = NDArray[np.float64]
Bases = dict[str, dict[str, Array]]
"""By layer and side a basis, its columns the most important first."""

AXES = ["seed", "task", "lora.init", "lora.ratio", "optim.lr", *captions.SETTING]
SCORES = ["test/accuracy", "test/loss"]
KEPT = ["hash", "stage", *AXES, "status", *SCORES]
KEPT += ["kind", "with", "map", "layer", "side", "i", "j", "phi", "chance", "seconds", "commit", "diff"]
MAPS = ("q", "v")
POWERS = (1, 2, 4, 8, 16, 32, 64, 128)
SIDES = ("A", "A - A_0", "left")
"""The right singular vectors of A, as the paper has it; those of what A has learned; the left ones of delta W."""

TITLES = {"A": "$A$", "A - A_0": "$A - A_0$", "left": "left of $\\Delta W$"}
UNTRAINED = {"A": "A_0"}
DIGITS = 5  # of phi in a CSV
APART = 0.07  # doublings of i between the dots of two lines


class Pair(NamedTuple):
    """Two runs, by their hashes, and the kind of comparison.

    kind: untrained (their weights before the first step), or a name that the study defines; layers: keep each layer's
    phi(i, i) in addition to the mean over the layers.
    """

    kind: str
    first: str
    other: str
    layers: bool = False


def layer_and_map(name: str) -> tuple[int, str]:
    """(3, "q") of bert.encoder.layer.3.attention.self.query: the layer's number and the name of the map."""
    number = re.search(r"\.(\d+)\.", name)
    assert number is not None, f"{name} has no number"
    return int(number[1]), name.rpartition(".")[2][0]


def bases(run: RunDirectory) -> Bases:
    """Orthonormal bases per layer of a run: of A, of A_0 (its start), of A - A_0, and of delta W, left and right."""
    from loralab.inspect.updates import initial_updates

    start, found = initial_updates(run), {}
    for name, update in updates(run).items():
        before, svd = start[name].A, update.svd()
        factors = {"A": update.A, "A_0": before, "A - A_0": update.A - before}
        sides = {side: spectra.right_basis(factor) for side, factor in factors.items()}
        found[name] = sides | {"left": svd.U, "right": svd.V}
    return found


def random_like(one: Bases, rng: np.random.Generator) -> Bases:
    """Uniformly random subspaces of the same shapes, as side A: the control."""
    shapes = {name: sides["A"].shape for name, sides in one.items()}
    return {name: {"A": spectra.random_basis(d, r, rng)} for name, (d, r) in shapes.items()}


def similarities(one: Bases, other: Bases, sides: Mapping[str, str], *, layers: bool = False) -> pd.DataFrame:
    """phi(i, j) for i and j that are powers of 2: its mean over the layers of each map, and chance, max(i, j) / d.

    sides: name of a side in the rows -> its name in the bases. layers: also return each layer's phi(i, i).
    """
    rows = []
    for name in one:
        number, which = layer_and_map(name)
        for side, key in sides.items():
            phi = spectra.similarity(one[name][key], other[name][key])
            i, j = (np.array([n for n in POWERS if n <= size]) for size in phi.shape)
            at = pd.MultiIndex.from_product([i, j], names=["i", "j"])
            thinned = pd.DataFrame({"phi": phi[np.ix_(i - 1, j - 1)].ravel()}, index=at).reset_index()
            chance = spectra.expected_similarity(thinned["i"], thinned["j"], len(one[name][key]))
            rows.append(thinned.assign(map=which, layer=str(number), side=side, chance=chance))
    each = pd.concat(rows)
    mean = each.groupby(["map", "side", "i", "j"], sort=False, as_index=False)[["phi", "chance"]].mean()
    found = pd.concat([mean.assign(layer="all"), each[(each["i"] == each["j"]) & layers]], ignore_index=True)
    return found.round({"phi": DIGITS, "chance": DIGITS})


def following(seeds: Iterable[Any]) -> dict[Any, Any]:
    """Each seed with the next one, and the last with the first: pairs of different seeds; each seed is in two pairs."""
    order = sorted(set(seeds))
    return dict(zip(order, [*order[1:], *order[:1]], strict=True))


def finished(tables: "Tables") -> dict[str, RunDirectory]:
    """The successful runs, by their hash."""
    runs = tables.runs[tables.runs["status"] == "success"]
    return {
        digest: RunDirectory(tables.store / "runs" / run) for digest, run in zip(runs["hash"], runs["run"], strict=True)
    }


def updates(run: RunDirectory) -> "dict[str, Update]":
    """The updates of a LoRA run, by layer."""
    from loralab.inspect.updates import read_updates

    return read_updates(run.adapter)


def frozen(runs: Iterable[RunDirectory]) -> dict[str, Array]:
    """W of each adapted layer, from the first run with an adapter (all share one backbone); {} if there is none."""
    from loralab.inspect.updates import frozen_weights

    for run in runs:
        if run.adapter.is_dir():
            return {name: W.astype(np.float64) for name, W in frozen_weights(run, updates(run)).items()}
    return {}


def compare_pairs(tables: "Tables", pairs: Sequence[Pair], *, random: bool = False) -> pd.DataFrame:
    """One row per run, with its scores (kind `run`); then the rows of the pairs whose runs both succeeded.

    random: for each pair also compare two random subspaces of the same shapes (kind `random`), from a fixed seed.
    """
    done, rng = finished(tables), np.random.default_rng(0)
    bases_of = functools.cache(lambda digest: bases(done[digest]))
    found = []
    for pair in _once(pairs):
        if not {pair.first, pair.other} <= done.keys():
            continue
        one, other = bases_of(pair.first), bases_of(pair.other)
        sides = UNTRAINED if pair.kind == "untrained" else {side: side for side in SIDES}
        rows = similarities(one, other, sides, layers=pair.layers)
        found.append(rows.assign(kind=pair.kind, hash=pair.first, **{"with": pair.other}))
        if random and pair.kind != "untrained":
            drawn = similarities(random_like(one, rng), random_like(other, rng), {"A": "A"})
            found.append(drawn.assign(kind="random", hash=pair.first))
    return scored(tables, found, KEPT)


def _once(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs without duplicates in the other order (with two seeds, `following` returns each pair twice)."""
    return list({(pair.kind, frozenset((pair.first, pair.other))): pair for pair in reversed(pairs)}.values())[::-1]


def scored(tables: "Tables", found: Sequence[pd.DataFrame], kept: Sequence[str]) -> pd.DataFrame:
    """One row per run, with its scores and code (kind `run`); then the found rows, each with its run's settings."""
    own = [*SCORES, "seconds", "commit", "diff"]
    rows = [tables.runs.drop(columns=own, errors="ignore").merge(each, on="hash") for each in found]
    return pd.concat([tables.runs.assign(kind="run"), *rows], ignore_index=True).reindex(columns=list(kept))


def by_seed(frame: pd.DataFrame, kind: str, which: str, side: str) -> pd.DataFrame:
    """phi, averaged over the layers: one row per seed (of the pair's first run), one column per (i, j)."""
    chosen = (frame["kind"] == kind) & (frame["map"] == which) & (frame["side"] == side) & (frame["layer"] == "all")
    return frame[chosen].pivot_table(index="seed", columns=["i", "j"], values="phi")


def block(phi: pd.DataFrame, size: int) -> "pd.Series[float]":
    """phi of the directions 2 to `size` of both: ||U_2..size^T V_2..size||_F^2 / (size - 1)."""
    shared = size * phi[size, size] - phi[1, size] - phi[size, 1] + phi[1, 1]
    return shared / (size - 1)


def interval(values: "pd.Series[float]", *, null: float = 0.0) -> Interval:
    """Student's interval of a mean over seeds; seeds without a value are left out and not counted in n."""
    return mean_interval(values.dropna(), null=null)


def with_interval(found: Interval, digits: int = 2) -> str:
    """`0.53 [0.41, 0.65]`."""
    return f"{found.estimate:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def setting(frame: pd.DataFrame) -> str:
    """`TREC, MiniLM, 100 steps of 32, LoRA (λ = 1) on q and v, alpha = r, init A`: settings common to all runs."""
    ratios = frame["lora.ratio"].dropna().unique()
    ratio = f" (λ = {ratios[0]:g})" if len(ratios) == 1 else ""
    return f"{shared(frame)}, LoRA{ratio} on q and v, alpha = r, init {'/'.join(frame['lora.init'].unique())}"


def ranks(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """`r = 8` and so on, in rising order, with their rows."""
    return {f"r = {rank:g}": rows for rank, rows in frame.groupby("lora.rank")}


class Line(NamedTuple):
    """A line of phi(i, i): its label, the kind of pairs, their side, and its style."""

    label: str
    kind: str
    side: str
    colour: str
    style: str = "-"


def panels(frame: pd.DataFrame, title: str, kind: str, drawn: Sequence[Line], ij: tuple[str, str]) -> "Figure":
    """Per map: the lines of phi(i, i) less chance, then phi(i, j) less chance of each side as a heatmap.

    ij: what i and j count, the labels of a heatmap's axes.
    """
    import matplotlib.pyplot as plt

    size = (plotting.DOUBLE, 2.1 * len(MAPS) + 0.5)
    figure, axes = plt.subplots(len(MAPS), 1 + len(SIDES), figsize=size, width_ratios=(1.4, *[1] * len(SIDES)))
    for row, which in zip(axes, MAPS, strict=True):
        lines(row[0], frame, which, drawn)
        row[0].set_title(f"{which}: first i of both")
        row[0].set(xlabel="i", ylabel="overlap, less chance")
        for ax, side in zip(row[1:], SIDES, strict=True):
            heatmap(ax, above_chance(frame, kind, which, side).mean().unstack("j"))
            ax.set_title(f"{which}: {TITLES[side]}")
            ax.set(xlabel=ij[1], ylabel=ij[0] if ax is row[1] else "")
    for ax in axes[:, 0]:
        ax.set_ylim(min(each.get_ylim()[0] for each in axes[:, 0]), max(each.get_ylim()[1] for each in axes[:, 0]))
    labels = axes[0][0].get_legend_handles_labels()
    figure.legend(*labels, loc="outside upper left", ncols=len(drawn), title=title, alignment="left")
    return figure


def above_chance(frame: pd.DataFrame, kind: str, which: str, side: str) -> pd.DataFrame:
    """`by_seed` less chance, max(i, j) / d: what is shared because of training."""
    phi = by_seed(frame, kind, which, side)
    own = frame[(frame["map"] == which) & (frame["side"] == side) & (frame["layer"] == "all")]
    return phi - own.groupby(["i", "j"])["chance"].mean().reindex(phi.columns)


def heatmap(ax: "Axes", cells: pd.DataFrame) -> None:
    """A number in each cell; the first direction at the bottom left; of more than four powers of two every other."""
    cells = cells.iloc[:: -(-len(cells.index) // 4), :: -(-len(cells.columns) // 4)]
    values = cells.to_numpy(dtype=float)
    ax.imshow(values, cmap="Blues", vmin=0, vmax=1, origin="lower", aspect="auto")
    ax.set_xticks(range(values.shape[1]), [f"{j:g}" for j in cells.columns])
    ax.set_yticks(range(values.shape[0]), [f"{i:g}" for i in cells.index])
    ax.tick_params(length=0)
    for (row, column), value in np.ndenumerate(values):
        text = f"{value:.2f}".replace("0.", ".")
        ax.text(column, row, text, ha="center", va="center", color="white" if value > 0.6 else "black")


def lines(ax: "Axes", frame: pd.DataFrame, which: str, drawn: Sequence[Line]) -> None:
    """phi(i, i) less chance against i, with its interval over the seeds; the lines' dots stand side by side."""
    ax.axhline(0, color="0.4", lw=0.8)
    places = sorted(frame.loc[(frame["map"] == which) & (frame["i"] == frame["j"]), "i"].unique())
    for number, line in enumerate(drawn):
        more = above_chance(frame, line.kind, which, line.side)
        found = {
            i * 2 ** (APART * (number - (len(drawn) - 1) / 2)): interval(more[i, i]) for i in places if (i, i) in more
        }
        dots(ax, list(found), list(found.values()), line.colour, line.label, join=line.style)
    ax.set_xscale("log", base=2)
    plotting.label_powers(ax.xaxis, places)
