"""ΔZ_B = delta1 + delta2 + delta3: what one update does to each adapted map's output, on a fixed probe batch.

LoRA+ (Hayou et al. 2024), Theorem 1. With Z the map's real input, Z_A = A Z and Z_B = scaling B Z_A, the update from
step t - 1 to t has three parts, all times scaling:

    delta1 = B_{t-1} ΔZ_A    the features change, by A and by the layers below
    delta2 = ΔB Z_A^{t-1}    B changes, with the features as they were
    delta3 = ΔB ΔZ_A         both at once

The theorem is about one layer with a fixed Z; in a network Z changes too, and the deeper the layer, the more of ΔZ_A is
due to the layers below. So the shares are also computed with Z fixed at its value after the update: own1 to 3.

It wraps the optimizer's step and changes neither random generators nor anything that is trained.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from loralab.training.evaluate import forward
from loralab.training.loop import Probing, Progress, unwatched

__all__ = ["OWN", "QUANTITIES", "ROWS_AT_ONCE", "SHARES", "State", "decomposed", "probing"]

SHARES = ("share1", "share2", "share3")
OWN = ("own1", "own2", "own3")
QUANTITIES = ("delta1", "delta2", "delta3", *SHARES, *OWN, "zA", "zB", "update_A", "update_B")
"""Of each map. delta1 to 3, zA, zB: root mean squares over real tokens and units, zA and zB after the update; share i:
<delta_i, ΔZ_B> / ||ΔZ_B||^2; own i: the same with Z held; update_A and B: ||ΔA||_F / ||A||_F before the update, and
B's."""

ROWS_AT_ONCE = 8
"""Of a batch: 16 rows in two batches, the long ones together, have a fifth fewer places than in one."""

Values = dict[str, float | None]


class Factors(Protocol):
    """A (r, d_in), B (d_out, r) and scaling of one map, live, as `loralab.methods` has them."""

    A: nn.Parameter
    B: nn.Parameter
    scaling: float


@dataclass(frozen=True)
class State:
    """A and B of one map at one step, with the features Z_A = A Z (tokens, r) of the probe batch then."""

    A: Tensor
    B: Tensor
    Z_A: Tensor


Maps = Mapping[str, tuple[nn.Module, Factors]]
"""Name -> the module whose input is Z, and its factors; the blocks of a fused map are maps of one module."""
Batches = Sequence[Mapping[str, Tensor]]


def probing(
    model: nn.Module,
    maps: Maps,
    batches: Batches,
    *,
    every: int | None,
    tell: Callable[[Progress, Values], None],
) -> Probing:
    """The context that the loop opens around the update to step 1 and to every `every`-th step; None: around none.

    batches: of the probe, on the model's device; tell: called after such an update, with `<map>/<quantity>` of every
    map that the model called.
    """
    if every is None:
        return unwatched

    @contextlib.contextmanager
    def probed(progress: Progress) -> Iterator[None]:
        A, B = ({name: getattr(f, which).detach().clone() for name, (_, f) in maps.items()} for which in "AB")
        with _in_fp32(model):
            before = _features(model, maps, {name: (A[name],) for name in maps}, batches)
            yield
            moves = {name: (A[name], factors.A.detach() - A[name]) for name, (_, factors) in maps.items()}
            after = _features(model, maps, moves, batches)
        values: Values = {}
        for name, (held, move) in after.items():
            factors = maps[name][1]
            old = State(A[name], B[name], before[name][0])
            new = State(factors.A.detach(), factors.B.detach(), held + move)
            found = decomposed(old, new, held, factors.scaling)
            values |= {f"{name}/{quantity}": value for quantity, value in found.items()}
        tell(progress, values)

    def due(progress: Progress) -> contextlib.AbstractContextManager[object]:
        step = progress.step + 1
        return probed(progress) if step == 1 or step % every == 0 else unwatched(progress)

    return due


def decomposed(before: State, after: State, held: Tensor, scaling: float) -> Values:
    """The QUANTITIES of one update; None for a share of no change, and for a ratio to a factor of zeros.

    held: A before the update on Z after it (tokens, r). Every part of a change is M C^T with C = scaling [B, ΔB]
    (d_out, 2r) and M (tokens, 2r), so that all inner products come from C^T C (2r, 2r) in float64: no output is formed.
    """
    A, B, old = (_exact(value) for value in (before.A, before.B, before.Z_A))
    dA, dB, new = _exact(after.A) - A, _exact(after.B) - B, _exact(after.Z_A)
    C = scaling * torch.cat([B, dB], 1)
    gram = C.T @ C

    def inner(M: Tensor, N: Tensor) -> float:
        return float((M @ gram * N).sum())

    def rms(M: Tensor) -> float:
        return math.sqrt(max(inner(M, M), 0.0) / (len(M) * len(B)))

    def shares(parts: list[Tensor]) -> list[float | None]:
        change = parts[0] + parts[1] + parts[2]
        whole = inner(change, change)
        return [_ratio(inner(part, change), whole) for part in parts]

    parts = _parts(old, new)
    found: Values = {f"delta{i}": rms(part) for i, part in enumerate(parts, start=1)}
    found |= zip(SHARES, shares(parts), strict=True)
    found |= zip(OWN, shares(_parts(_exact(held), new)), strict=True)
    found["zA"] = float(new.square().mean().sqrt())
    found["zB"] = rms(torch.cat([new, new], 1))
    found["update_A"] = _ratio(float(dA.norm()), float(A.norm()))
    found["update_B"] = _ratio(float(dB.norm()), float(B.norm()))
    return found


def _parts(old: Tensor, new: Tensor) -> list[Tensor]:
    """M of B ΔZ_A, ΔB Z_A and ΔB ΔZ_A, where Z_A goes from `old` to `new`."""
    move, none = new - old, torch.zeros_like(old)
    return [torch.cat(pair, 1) for pair in ((move, none), (none, old), (none, move))]


def _features(
    model: nn.Module, maps: Maps, factors: Mapping[str, Sequence[Tensor]], batches: Batches
) -> dict[str, list[Tensor]]:
    """Each of a map's `factors` (r, d_in) on its Z: (tokens, r) in float64, for every map that the forward pass calls.

    One product each, so that equal factors on an equal Z give equal bits. Dropout is off.
    """
    found: dict[str, list[tuple[Tensor, ...]]] = {name: [] for name in maps}
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for batch in batches:
                with _kept(maps, factors, batch["attention_mask"].bool(), found):
                    forward(model, batch)
    finally:
        model.train(was_training)
    return {name: [torch.cat(parts) for parts in zip(*calls, strict=True)] for name, calls in found.items() if calls}


@contextlib.contextmanager
def _kept(
    maps: Maps,
    factors: Mapping[str, Sequence[Tensor]],
    real: Tensor,
    found: Mapping[str, list[tuple[Tensor, ...]]],
) -> Iterator[None]:
    """Inside, each call of a map adds its features to `found`."""

    def keep(name: str, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        Z = _tokens(inputs[0], real)
        found[name].append(tuple(_exact(Z @ A.T) for A in factors[name]))

    hooks = [module.register_forward_pre_hook(partial(keep, name)) for name, (module, _) in maps.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def _in_fp32(model: nn.Module) -> Iterator[None]:
    """Inside, the frozen weights of a bf16 or fp16 model are fp32 copies; afterwards the original tensors.

    Small updates are lost in rounding otherwise: at the end of a linear schedule (MiniLM, TREC, 60 steps, layer 3's
    values) delta1 was 4.2e-4 in bf16, and 5.1e-5 in fp32.
    """
    kept = [(t, t.data) for t in (*model.parameters(), *model.buffers()) if t.dtype in (torch.bfloat16, torch.float16)]
    for tensor, data in kept:
        tensor.data = data.float()
    try:
        yield
    finally:
        for tensor, data in kept:
            tensor.data = data


def _tokens(x: Tensor, real: Tensor) -> Tensor:
    """The rows (tokens, d_in) of an input that are not padding; all rows of one whose layout is not the batch's."""
    rows = x.flatten(0, -2)
    whole = x.shape[:-1] == real.shape or (x.ndim == 2 and len(x) == real.numel())
    return rows[real.flatten()] if whole else rows


def _exact(value: Tensor) -> Tensor:
    return value.cpu().double()


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None
