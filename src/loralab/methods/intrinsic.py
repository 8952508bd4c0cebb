"""Intrinsic dimension: theta = theta_0 + R z, where z (d,) is trained and R (N, d) is random and fixed.

Li et al. 2018 (1804.08838), equation 2; Aghajanyan et al. 2020 (2012.13255), equations 1 and 2. theta is every weight
of the backbone (including embeddings, biases and norms), theta_0 is frozen, and the columns of R have length 1, so that
||R z|| is about ||z|| and each tensor's share of it is its share of the weights. A step of Adam moves theta by about
lr sqrt(d), compared with lr sqrt(N) in full fine-tuning, so z needs a learning rate about sqrt(N / d) times larger.

R is never stored. Reading a module's weight computes theta_0 + R z, summed in fp32 and rounded once to theta_0's
precision; nothing is kept between passes, so that threads may share the model. For an embedding table, a training step
computes only the rows that it reads. With MiniLM's 22.7M weights in fp32, d = 1000 and 32 sentences of 27 tokens, a
step takes 1.64 times as long as in full fine-tuning with `fastfood`, and 1.13 times with `sparse`
(benchmarks/subspaces.py).
"""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from loralab.errors import UserError
from loralab.methods.subspace_projections import PROJECTIONS, Fastfood, Sparse

__all__ = ["Coordinates", "Shift", "attach", "merge"]

# Number of weights projected at once, so that intermediate results fit into a core's cache: with 2 MiB of cache, R^T g
# of 589,824 weights takes 14.7 ms at once and 2.2 ms in four parts (d = 1000, one thread).
AT_ONCE = 2**17


class Coordinates(nn.Module):
    """z (d,), 0 at the start; forward returns the vector to project: z, or z / sqrt(uses) for `sparse`."""

    parameter_roles: ClassVar[dict[str, str]] = {"z": "weight"}
    scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.z = nn.Parameter(torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim), persistent=False)

    def forward(self) -> Tensor:
        return self.z * self.scale


class Shift(nn.Module):
    """theta_0 -> theta_0 + R z of one tensor, in theta_0's precision and shape."""

    def __init__(self, coordinates: Coordinates, parts: Sequence[Fastfood | Sparse]) -> None:
        super().__init__()
        self.coordinates = (coordinates,)  # in a tuple: z belongs to the model, not to each of its tensors
        self.parts = nn.ModuleList(parts)

    def forward(self, theta: Tensor) -> Tensor:
        moved = _Sum.apply(theta, self.coordinates[0](), self.parts)  # type: ignore[no-untyped-call]  # untyped in torch
        return cast(Tensor, moved)

    def rows(self, theta: Tensor, index: Tensor) -> Tensor:
        """The rows of `forward(theta)` at the sorted `index`, for theta (n, m), without computing the other rows."""
        entries = (index.unsqueeze(1) * theta.shape[1] + torch.arange(theta.shape[1], device=index.device)).flatten()
        moved = _Some.apply(theta, self.coordinates[0](), self.parts, entries)  # type: ignore[no-untyped-call]  # as above
        return cast(Tensor, moved).view(len(index), -1)


class _Sum(torch.autograd.Function):
    """theta_0 + R z, with the gradient R^T g in z, part by part; autograd would store every intermediate result."""

    @staticmethod
    def forward(ctx: Any, theta: Tensor, z: Tensor, parts: nn.ModuleList) -> Tensor:
        ctx.parts = parts
        moved = torch.empty(theta.shape, dtype=theta.dtype, device=theta.device)
        pieces = zip(torch.split(moved.view(-1), AT_ONCE), torch.split(theta.reshape(-1), AT_ONCE), parts, strict=True)
        for out, start, part in pieces:
            out.copy_(cast(Fastfood | Sparse, part).times(z).add_(start))
        return moved

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[None, Tensor, None]:
        pieces = torch.split(g.reshape(-1), AT_ONCE)
        return None, sum(part.transposed(piece.float()) for part, piece in zip(ctx.parts, pieces, strict=True)), None


class _Some(torch.autograd.Function):
    """`_Sum` for some entries of theta, by sorted flat index: computes only the tiles of R that contain entries."""

    @staticmethod
    def forward(ctx: Any, theta: Tensor, z: Tensor, parts: nn.ModuleList, entries: Tensor) -> Tensor:
        ctx.parts = parts
        ctx.save_for_backward(entries)
        moved = torch.cat([part.times(z, tiles)[places] for part, tiles, places in _touched(parts, entries)])
        return moved.add_(torch.take(theta, entries)).to(theta.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[None, Tensor, None, None]:
        (entries,) = ctx.saved_tensors
        found, rest = [], g.float()
        for part, tiles, places in _touched(ctx.parts, entries):
            own, rest = rest.tensor_split([len(places)])
            whole = own.new_zeros(len(tiles) * part.tile).index_copy_(0, places, own)
            found.append(part.transposed(whole, tiles))
        return None, torch.stack(found).sum(0), None, None


def _touched(parts: nn.ModuleList, entries: Tensor) -> Iterator[tuple[Fastfood | Sparse, Tensor, Tensor]]:
    """Yields each part that contains entries, the numbers of their tiles, and the entries' positions in these tiles."""
    numbers, counts = torch.unique_consecutive(entries // AT_ONCE, return_counts=True)
    for number, own in zip(numbers.tolist(), torch.split(entries, counts.tolist()), strict=True):
        part = cast(Fastfood | Sparse, parts[number])
        tiles, nth = torch.unique_consecutive((own - number * AT_ONCE) // part.tile, return_inverse=True)
        yield part, tiles, nth * part.tile + (own - number * AT_ONCE) % part.tile


def _look_up(table: Any, tokens: Tensor) -> Tensor:
    """Forward of an embedding: a training step computes only the rows of the table that it reads.

    Without a gradient the whole table is used, since evaluation computes it once for all batches.
    """
    if not torch.is_grad_enabled():
        return nn.Embedding.forward(table, tokens)
    (shift,) = table.parametrizations.weight
    index, places = torch.unique(tokens, return_inverse=True)
    rows = shift.rows(table.parametrizations.weight.original, index)
    if table.padding_idx is not None:  # its row has no gradient, as in nn.Embedding
        rows = torch.where((index == table.padding_idx).unsqueeze(1), rows.detach(), rows)
    return nn.functional.embedding(places, rows)


def attach(
    model: nn.Module, *, head: Sequence[str], dim: int, projection: Literal["fastfood", "sparse"], seed: int
) -> None:
    """Makes every weight of `model` outside the head theta_0 + R z, in place; z is `model.intrinsic.z`, all zeros.

    head: names of modules that are fully trained. R is drawn on the CPU from `seed`, tensor by tensor in module
    order, so that it is the same on every device; a tensor that several modules share has one R z.
    Raises UserError if dim exceeds the number of weights.
    """
    owners = [
        (module, leaf, parameter)
        for name, module in model.named_modules()
        if not any(name == path or name.startswith(f"{path}.") for path in head)
        for leaf, parameter in module._parameters.items()
        if parameter is not None
    ]
    tensors = {id(parameter): parameter for _, _, parameter in owners}
    total = sum(parameter.numel() for parameter in tensors.values())
    if dim > total:
        raise UserError(
            f"intrinsic.dim: got {dim}, more than the {total} weights of the backbone; give {total} at most"
        )
    coordinates = Coordinates(dim)
    generator = torch.Generator().manual_seed(seed)
    uses = torch.zeros(2 * dim, dtype=torch.int64)
    shifts = {}
    for key, parameter in tensors.items():
        sizes = [min(AT_ONCE, parameter.numel() - start) for start in range(0, parameter.numel(), AT_ONCE)]
        parts = [PROJECTIONS[projection](size, dim, total, generator) for size in sizes]
        uses += sum(torch.bincount(part.column, minlength=2 * dim) for part in parts if isinstance(part, Sparse))
        shifts[key] = Shift(coordinates, parts).to(parameter.device)
        parameter.requires_grad_(False)
    if projection == "sparse":
        coordinates.scale = (uses[:dim] + uses[dim:]).clamp(min=1).rsqrt()
    for module, leaf, parameter in owners:
        looks_up = type(module).forward is nn.Embedding.forward
        plain = looks_up and module.max_norm is None and not module.scale_grad_by_freq
        parametrize.register_parametrization(
            module, leaf, shifts[id(parameter)], unsafe=True
        )  # unsafe: skips a test run
        if plain:  # parametrize has created a class for this module
            type(module).forward = _look_up
    model.add_module("intrinsic", coordinates.to(next(iter(tensors.values())).device))


def merge(model: nn.Module) -> None:
    """Writes theta_0 + R z into the weights and removes z; the model has the backbone's parameter names again."""
    found: dict[int, tuple[Tensor, Shift]] = {}
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            for leaf, chain in list(cast(nn.ModuleDict, module.parametrizations).items()):
                original = cast(Tensor, chain.original)
                found[id(original)] = original, cast(Shift, cast(nn.ModuleList, chain)[0])
                parametrize.remove_parametrizations(module, leaf, leave_parametrized=False)
    with torch.no_grad():
        for theta, shift in found.values():  # once per tensor, also if modules share it
            theta.copy_(shift(theta))
    del model.intrinsic
