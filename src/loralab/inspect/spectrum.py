"""`loralab spectrum`: the spectra of an adapter's updates, one row per layer, and a figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loralab import plotting
from loralab.errors import UserError
from loralab.inspect import spectra
from loralab.inspect.updates import Adapter, Update
from loralab.text import align

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Layer", "as_json", "drawn", "measured", "short_names", "spectrum", "table"]

DIGITS = 4  # of a number in the table


@dataclass(frozen=True)
class Layer:
    """One layer's update; None where a number does not exist (an update of zero), or W is not available."""

    layer: str
    rank: int
    scaling: float
    norm: float
    effective_rank: float | None
    stable_rank: float | None
    first: float | None
    amplification: float | None
    intruders: int | None
    singular_values: list[float]


def spectrum(adapter: Adapter, *, top: int, eps: float) -> tuple[list[Layer], list[str]]:
    """`measured` with the adapter's W, and lines that explain the columns, or why those of W are missing."""
    if top < 0 or not 0 < eps <= 1:
        raise UserError(f"--top {top} --eps {eps:g}: top is 0 or more, and eps in (0, 1]")
    notes = ["first: share of ||ΔW||² in its first direction"]
    weights = None
    try:
        weights = adapter.weights()
        notes[0] += "; amplification: ||ΔW|| / ||Uᵀ W V||"
    except UserError as error:
        notes += [f"no amplification and no intruders, for W is not there: {error}"]
    if weights is not None and top:
        notes += [
            f"intruders: of the first {top} left singular vectors of W + ΔW, those unlike all of W's (|cos| < {eps:g})"
        ]
    return measured(adapter.updates, weights, top=top, eps=eps), notes


def measured(
    updates: Mapping[str, Update], weights: Mapping[str, NDArray[Any]] | None, *, top: int, eps: float
) -> list[Layer]:
    """The layers' spectra; where the frozen W are given, amplification and intruders too.

    top, eps: of the first `top` left singular vectors of W + delta W, those whose |cosine| with each of W's is below
    eps are intruders. With top 0 they are not computed, which saves two SVDs of the size of W per layer.
    """
    return [
        _layer(name, update, None if weights is None else weights[name], top, eps) for name, update in updates.items()
    ]


def _layer(name: str, update: Update, W: NDArray[Any] | None, top: int, eps: float) -> Layer:
    U, S, V = update.svd()
    intruders = None
    if W is not None and top > 0:
        intruders = spectra.intruders(W, U * S @ V.T, min(top, *W.shape), eps)
    return Layer(
        layer=name,
        rank=update.rank,
        scaling=update.scaling,
        norm=float(np.linalg.norm(S)),
        effective_rank=_known(spectra.effective_rank(S)),
        stable_rank=_known(spectra.stable_rank(S)),
        first=_known(spectra.energy(S)[0]),
        amplification=None if W is None else _known(spectra.amplification(U, S, V, W)),
        intruders=intruders,
        singular_values=S.tolist(),
    )


def table(layers: Sequence[Layer]) -> list[str]:
    """One row per layer; the columns of W are left out where no layer has them."""
    columns = {
        "r": [str(each.rank) for each in layers],
        "|ΔW|": [_cell(each.norm) for each in layers],
        "effective rank": [_cell(each.effective_rank) for each in layers],
        "stable rank": [_cell(each.stable_rank) for each in layers],
        "first": [_cell(each.first) for each in layers],
        "amplification": [_cell(each.amplification) for each in layers],
        "intruders": ["-" if each.intruders is None else str(each.intruders) for each in layers],
    }
    shown = {"layer": short_names([each.layer for each in layers]), **columns}
    for name in ("amplification", "intruders"):
        if set(shown[name]) == {"-"}:
            del shown[name]
    return align([tuple(shown), *zip(*shown.values(), strict=True)])


def as_json(adapter: Adapter, layers: Sequence[Layer], notes: Sequence[str]) -> dict[str, Any]:
    """Every layer with all its singular values; unknown values are null."""
    return {"adapter": str(adapter.directory), "notes": [*notes], "layers": [vars(each) for each in layers]}


def drawn(title: str, layers: Sequence[Layer]) -> "Figure":
    """Singular values, and the share of ||delta W||_F^2 in the first directions: one line per layer.

    The kind of a layer is the last part of its name (query, value).
    """
    from matplotlib import pyplot

    kinds = list(dict.fromkeys(each.layer.rsplit(".", 1)[-1] for each in layers))
    figure, (values, shares) = pyplot.subplots(1, 2, figsize=(plotting.DOUBLE, 2.4))
    for each in layers:
        S = np.array(each.singular_values)
        at = kinds.index(each.layer.rsplit(".", 1)[-1])
        style = {"color": plotting.COLOURS[at % len(plotting.COLOURS)], "alpha": 0.7, "lw": 0.8, "marker": "."}
        i = np.arange(1, len(S) + 1)
        values.plot(i, np.where(S > 0, S, np.nan), **style)
        shares.plot(i, spectra.energy(S), **style)
    for at, kind in enumerate(kinds):
        values.plot([], [], color=plotting.COLOURS[at % len(plotting.COLOURS)], label=kind)
    values.set(yscale="log", xlabel="i", ylabel="singular value $\\sigma_i$ of $\\Delta W$")
    shares.set(ylim=(0, 1.03), xlabel="i", ylabel="share of $\\|\\Delta W\\|_F^2$ in directions 1 to i")
    for axes in (values, shares):
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside upper center", ncols=min(len(kinds), 8))
    plotting.heading(figure, f"{title}: {len(layers)} layers, a line each.")
    return figure


def short_names(names: Sequence[str]) -> list[str]:
    """The names without their common prefix; at least the last part stays."""
    parts = [name.split(".") for name in names]
    same = 0
    while len(parts) > 1 and all(len(each) > same + 1 for each in parts) and len({each[same] for each in parts}) == 1:
        same += 1
    return [".".join(each[same:]) for each in parts]


def _known(value: float) -> float | None:
    """A number, or None for NaN and infinities."""
    return float(value) if np.isfinite(value) else None


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.{DIGITS}g}"
