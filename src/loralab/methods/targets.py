"""Target strings -> the maps to adapt: by role (q, k, v, o, mlp, all) or by a glob over module names."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from loralab.backbones.quantise import QuantisedMap
from loralab.compat.transformers import conv1d
from loralab.errors import UserError

__all__ = ["RoleMap", "Target", "adaptable", "embedding_scale", "maps_by_name", "matches", "select"]

ALL = "all"
WHOLE = "whole"
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}  # relative: of two ways to compute the same map
HALF_TOLERANCE = 3e-2


class RoleMap(Protocol):
    """One linear map of the backbone and its role, as `loralab.backbones.families.linear_maps` returns it."""

    @property
    def name(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def rows(self) -> range | tuple[int, ...] | None: ...


@dataclass(frozen=True)
class Target:
    """A module, and the block of its outputs that is adapted (None: all of them)."""

    name: str
    block: str
    rows: range | tuple[int, ...] | None


@dataclass(frozen=True)
class _Named:
    """A linear map of a family whose roles are not known; `all` alone names it."""

    name: str
    role: str = ALL
    rows: None = None


def adaptable(model: nn.Module, head: Sequence[str]) -> dict[str, nn.Module]:
    """Every Linear, Embedding and Conv1D outside the head, by module name, also those of subclasses (Falcon's, BART's).

    A subclass whose output is not W x + b, or not a multiple of a row of its table, is excluded: OPT's position table
    counts from the attention mask, and quantised weights are no matrix.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Embedding, conv1d())) and not _inside(name, head) and _is_its_map(module)
    }


def maps_by_name(model: nn.Module, modules: Mapping[str, nn.Module]) -> tuple[RoleMap, ...]:
    """What `all` means where no roles are known: the linear maps among `modules`, as in PEFT's all-linear.

    Embeddings are excluded, and so is the matrix that maps to the vocabulary, tied to them or not.
    """
    output = getattr(model, "get_output_embeddings", lambda: None)()
    return tuple(
        _Named(name)
        for name, module in modules.items()
        if module is not output and not isinstance(module, nn.Embedding)
    )


def embedding_scale(table: nn.Module) -> float | Tensor:
    """s, where the forward of an embedding is s W[ids]: 1, or the attribute that transformers' subclasses have."""
    scale = getattr(table, "embed_scale", 1.0)
    return scale.to(cast(Tensor, table.weight).dtype) if isinstance(scale, Tensor) else float(scale)


def matches(pattern: str, name: str) -> bool:
    """Whether a glob matches a module's whole dotted name or the end of it (`query`, `layer.0.*`)."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def select(
    patterns: Sequence[str],
    maps: Sequence[RoleMap],
    modules: Mapping[str, nn.Module],
    *,
    model: nn.Module | None = None,
    key: str = "lora.targets",
) -> tuple[Target, ...]:
    """The targets of `patterns`, each once, in module order; raises UserError for a pattern without matches.

    A glob adapts a whole fused projection, and overrides roles that name parts of it. model: all modules, so that the
    error tells what else a pattern names.
    """
    found: dict[str, dict[str, Target]] = {}
    for pattern in patterns:
        hits = _by_role(pattern, maps) or [Target(m, WHOLE, None) for m in modules if matches(pattern, m)]
        if not hits:
            raise UserError(_no_match(key, pattern, maps, modules, model))
        for hit in hits:
            found.setdefault(hit.name, {})[hit.block] = hit
    order = [*dict.fromkeys(m.role for m in maps)]  # so that the order of the patterns does not matter
    chosen = []
    for name in modules:
        blocks = found.pop(name, {})
        chosen += [blocks[WHOLE]] if WHOLE in blocks else [blocks[role] for role in order if role in blocks]
    assert not found, f"maps outside the adaptable modules: {sorted(found)}"
    return tuple(chosen)


def _is_its_map(module: nn.Module) -> bool:
    """Whether the forward of a Linear, Embedding or Conv1D, or of a subclass, computes what its weight says.

    A forward of the subclass's own is tried on two inputs; hooks, and methods that were set on the module, are not
    called.
    """
    weight = module.weight
    if not isinstance(weight, Tensor) or not weight.is_floating_point() or weight.ndim != 2:  # packed by a quantiser
        return False
    forward: Any = type(module).forward
    if forward in (nn.Linear.forward, nn.Embedding.forward, conv1d().forward, QuantisedMap.forward):
        return True
    rows, columns = weight.shape
    with torch.no_grad():
        try:
            if isinstance(module, nn.Embedding):
                x = torch.arange(min(rows, 6), device=weight.device).flip(0).view(1, -1)  # no order of positions
                wanted = nn.functional.embedding(x, weight) * embedding_scale(module)
            elif isinstance(module, nn.Linear):
                x = torch.arange(2.0 * columns, device=weight.device).sin().view(1, 2, columns).to(weight.dtype)
                wanted = nn.functional.linear(x, weight, module.bias)
            else:
                return False
            found = forward(module, x)
            if not isinstance(found, Tensor) or found.shape != wanted.shape:
                return False
        except Exception:  # a forward of another library, called as a plain map; what it raises is its own
            return False
        apart = (found.double() - wanted.double()).norm()
        return not apart > TOLERANCE.get(weight.dtype, HALF_TOLERANCE) * wanted.double().norm()  # NaN is of the weights


def _by_role(pattern: str, maps: Sequence[RoleMap]) -> list[Target]:
    wanted = [m for m in maps if pattern in (ALL, m.role)]
    return [Target(m.name, WHOLE if m.rows is None else m.role, m.rows) for m in wanted]


def _no_match(
    key: str, pattern: str, maps: Sequence[RoleMap], modules: Mapping[str, nn.Module], model: nn.Module | None
) -> str:
    """The line for a pattern without matches: why, where that is known; what there is; and the nearest name."""
    roles = [*dict.fromkeys([*(m.role for m in maps), ALL])] if maps else []
    ends = [*dict.fromkeys(name.rsplit(".", 1)[-1] for name in modules)]
    near = difflib.get_close_matches(pattern, [name for name in (*ends, *roles) if name != pattern], n=1)
    inside = [] if model is None else [(n, m) for n, m in model.named_modules() if n and matches(pattern, n)]
    known = "the only role known here is all" if roles == [ALL] else f"roles: {', '.join(roles)}"
    hint = f"did you mean {near[0]!r}?" if near else f"modules end in {', '.join(ends)}"
    return "; ".join(
        part
        for part in (
            f"{key}: {pattern!r} matches no linear map of this backbone",
            _what_it_names(*inside[0], modules) if inside else "",
            known if roles else "",
            hint if ends else "it has none",
        )
        if part
    )


def _what_it_names(name: str, module: nn.Module, modules: Mapping[str, nn.Module]) -> str:
    """What a module that is not adapted is."""
    within = [*dict.fromkeys(m.rsplit(".", 1)[-1] for m in modules if m.startswith(f"{name}."))]
    if within:
        return f"{name} is a {type(module).__name__}, which holds {', '.join(within)}"
    if isinstance(module, (nn.Linear, nn.Embedding, conv1d())):
        if _is_its_map(module):
            return f"{name} is in the head, which is trained as a whole"
        return (
            f"{name} is a {type(module).__name__}, which computes more than its matrix, so that LoRA cannot add to it"
        )
    return f"{name} is a {type(module).__name__}"


def _inside(name: str, parents: Sequence[str]) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)
