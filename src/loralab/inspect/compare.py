"""`loralab compare`: how much two adapters' subspaces overlap, layer by layer, beside the value by chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loralab.config.stored import stored_config
from loralab.errors import UserError
from loralab.inspect import spectra
from loralab.inspect.spectrum import short_names
from loralab.inspect.updates import Adapter, Update
from loralab.text import align

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["SIDES", "Pair", "as_json", "compared", "drawn", "mean_phi", "notes", "table"]

Array = NDArray[np.float64]
SIDES = ("A", "right", "left")
"""The right singular vectors of A (LoRA's Figs 3 and 4), and those of delta W on its input and its output side."""

TITLES = {"A": "$A$", "right": "right of $\\Delta W$", "left": "left of $\\Delta W$"}
PLACES = ("1,1", "4,4", "all")  # of the table; `all`: every direction of both


@dataclass(frozen=True, eq=False)
class Pair:
    """One layer of both adapters: for each of SIDES phi(i, j) at [i - 1, j - 1], and the dimension of its space.

    Directions without a singular value are arbitrary and left out, so where delta W = 0 a side's phi is empty.
    """

    layer: str
    ranks: tuple[int, int]
    phi: dict[str, Array]
    dimension: dict[str, int]

    def at(self, side: str, place: str) -> float | None:
        """phi at one of PLACES; None where there are fewer directions."""
        i, j = self._where(side, place)
        sizes = self.phi[side].shape
        return float(self.phi[side][i - 1, j - 1]) if 0 < i <= sizes[0] and 0 < j <= sizes[1] else None

    def chance(self, side: str, place: str) -> float | None:
        """max(i, j) / d of two random subspaces there."""
        at = self._where(side, place)
        return None if self.at(side, place) is None else float(spectra.expected_similarity(*at, self.dimension[side]))

    def _where(self, side: str, place: str) -> tuple[int, int]:
        i, j = self.phi[side].shape if place == "all" else map(int, place.split(","))
        return i, j


def compared(first: Adapter, second: Adapter) -> list[Pair]:
    """The layers that both adapt. Raises UserError where there are none, or where their shapes differ."""
    shared = [name for name in first.updates if name in second.updates]
    if not shared:
        one, other = (next(iter(each.updates)) for each in (first, second))
        raise UserError(f"no layer in common: {first.name} adapts {one!r}, ..., and {second.name} {other!r}, ...")
    return [_pair(name, first.updates[name], second.updates[name]) for name in shared]


def _pair(name: str, first: Update, second: Update) -> Pair:
    shapes = [(len(each.B), each.A.shape[1]) for each in (first, second)]
    if shapes[0] != shapes[1]:
        raise UserError(f"{name!r} is {shapes[0]} in one and {shapes[1]} in the other: their backbones differ")
    one, other = _bases(first), _bases(second)
    phi = {side: _similarity(one[side], other[side]) for side in SIDES}
    d, k = shapes[0]
    return Pair(name, (first.rank, second.rank), phi, {"A": k, "right": k, "left": d})


def _bases(update: Update) -> dict[str, Array]:
    """The directions of each side that have a singular value."""
    U, S, V = update.svd()
    rank = spectra.numerical_rank(S)
    rows = np.linalg.svd(update.A.astype(np.float64), compute_uv=False)
    A = spectra.right_basis(update.A)[:, : spectra.numerical_rank(rows)]
    return {"A": A, "right": V[:, :rank], "left": U[:, :rank]}


def _similarity(one: Array, other: Array) -> Array:
    sizes = (one.shape[1], other.shape[1])
    return spectra.similarity(one, other) if all(sizes) else np.empty(sizes)


def notes(first: Adapter, second: Adapter) -> list[str]:
    """Lines that explain the columns, and warn of a shared initialisation or layers that were left out."""
    found = [
        "phi(i, j) of the first i and j singular vectors of A, and of ΔW on its input (right) and output (left) side; "
        "all: every direction of both; chance: max(i, j) / d",
    ]
    seeds = [stored_config(each.run.path / "config.yaml").init_seed for each in (first, second) if each.run]
    if len(seeds) == 2 and seeds[0] == seeds[1]:
        found += [
            f"warning: both runs drew their factors from init_seed={seeds[0]}, and a shared initialisation fakes "
            "overlap; compare runs of different init seeds"
        ]
    for one, other in ((first, second), (second, first)):
        alone = short_names([name for name in one.updates if name not in other.updates])
        if alone:
            found += [f"left out, as only {one.name} adapts them: {', '.join(alone)}"]
    return found


def table(pairs: Sequence[Pair]) -> list[str]:
    """One row per layer, then their mean: phi of each side, then the value by chance on the input and output side."""
    names = short_names([each.layer for each in pairs])
    ranks = ["/".join(map(str, dict.fromkeys(each.ranks))) for each in pairs]
    columns: list[tuple[str, ...]] = [("", "layer", *names, "mean"), ("", "r", *ranks, "")]
    for side in SIDES:
        for place in PLACES:
            title = side if place == PLACES[0] else ""
            columns += [(title, place, *_cells([each.at(side, place) for each in pairs]))]
    square = all(each.dimension["A"] == each.dimension["left"] for each in pairs)
    for side, end in (("A", ""),) if square else (("A", "in"), ("left", "out")):
        for place, title in zip(PLACES, ("chance", end, ""), strict=True):
            columns += [(title, place, *_cells([each.chance(side, place) for each in pairs]))]
    return align([*zip(*columns, strict=True)])


def _cells(values: Sequence[float | None]) -> list[str]:
    there = [value for value in values if value is not None]
    mean = float(np.mean(there)) if there else None
    return ["-" if value is None else f"{value:.3f}" for value in (*values, mean)]


def as_json(first: Adapter, second: Adapter, pairs: Sequence[Pair], notes: Sequence[str]) -> dict[str, Any]:
    """phi at every (i, j), as [i - 1][j - 1], of every layer and side, and the dimension that chance depends on."""
    layers = [
        {
            "layer": each.layer,
            "ranks": each.ranks,
            "dimension": each.dimension,
            "phi": {side: phi.tolist() for side, phi in each.phi.items()},
        }
        for each in pairs
    ]
    return {"adapters": [str(first.directory), str(second.directory)], "notes": [*notes], "layers": layers}


def drawn(first: str, second: str, pairs: Sequence[Pair]) -> "Figure":
    """phi(i, j) as heatmaps: the mean over the layers, the value by chance, then each layer; SIDES side by side."""
    from matplotlib import pyplot

    from loralab import plotting

    mean = {side: mean_phi([each.phi[side] for each in pairs]) for side in SIDES}
    chance = {side: _chance(mean[side].shape, [each.dimension[side] for each in pairs]) for side in SIDES}
    names = short_names([each.layer for each in pairs])
    rows = [("mean of layers", mean), ("chance", chance), *((n, p.phi) for n, p in zip(names, pairs, strict=True))]
    height = -(-len(rows) // 2)  # in two halves, side by side
    figure, grid = pyplot.subplots(
        height, 2 * len(SIDES), figsize=(plotting.DOUBLE, 0.4 + 1.02 * height), squeeze=False
    )
    image = None
    for at in range(2 * height):
        for column, side in enumerate(SIDES):
            axes = grid[at % height, column + len(SIDES) * (at // height)]
            if at >= len(rows):
                axes.set_axis_off()
                continue
            name, phi = rows[at]
            image = _heatmap(axes, phi[side]) or image
            if at % height == 0:
                axes.set_title(TITLES[side])
            if column == 0:
                axes.set_ylabel(_in_lines(name))
    if image is not None:
        figure.colorbar(image, ax=grid, label="$\\phi(i, j)$", fraction=0.02, pad=0.01)
    plotting.heading(
        figure,
        f"$\\phi(i, j)$ of the first i directions of {first} (down) and the first j of {second} (across), "
        f"{len(pairs)} layers; chance: max(i, j) / d, the mean over random subspaces.",
    )
    return figure


def mean_phi(every: Sequence[Array]) -> Array:
    """The mean of the matrices that are not empty, over the i and j that all of them have."""
    there = [phi for phi in every if phi.size]
    if not there:
        return np.empty((0, 0))
    i, j = (min(phi.shape[axis] for phi in there) for axis in (0, 1))
    mean: Array = np.mean([phi[:i, :j] for phi in there], axis=0)
    return mean


def _chance(sizes: tuple[int, ...], dimensions: Sequence[int]) -> Array:
    i, j = np.indices(sizes) + 1
    every = [spectra.expected_similarity(i, j, d) for d in dimensions]
    mean: Array = np.mean(every, axis=0)
    return mean


def _in_lines(name: str, longest: int = 18) -> str:
    """A dotted name, wrapped to a panel's height where its parts fit."""
    lines = [""]
    for part in name.split("."):
        if lines[-1] and len(lines[-1]) + len(part) > longest:
            lines.append("")
        lines[-1] += f"{part}."
    return "\n".join(lines)[:-1]


def _heatmap(axes: "Axes", phi: Array) -> Any:
    """Draws one matrix; None where it is empty."""
    axes.set(xticks=[], yticks=[])
    if not phi.size:
        axes.text(0.5, 0.5, "zero", ha="center", va="center", transform=axes.transAxes, color="0.4")
        return None
    i, j = phi.shape
    axes.set(xticks=sorted({1, j}), yticks=sorted({1, i}))
    extent = (0.5, j + 0.5, i + 0.5, 0.5)
    return axes.imshow(phi, vmin=0, vmax=1, cmap="viridis", aspect="auto", extent=extent, interpolation="nearest")
