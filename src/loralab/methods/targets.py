"""Target strings -> the maps to adapt: by role (q, k, v, o, mlp, all) or by a glob over module names."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

from torch import nn

from loralab.compat.transformers import conv1d
from loralab.errors import UserError

__all__ = ["RoleMap", "Target", "adaptable", "matches", "select"]

ALL = "all"
WHOLE = "whole"


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


def adaptable(model: nn.Module, head: Sequence[str]) -> dict[str, nn.Module]:
    """Every Linear, Embedding and Conv1D outside the head, by module name.

    Subclasses that override forward are excluded (OPT's position table counts from the attention mask).
    """
    forwards = [kind.forward for kind in (nn.Linear, nn.Embedding, conv1d())]
    return {
        name: module
        for name, module in model.named_modules()
        if type(module).forward in forwards and not _inside(name, head)
    }


def matches(pattern: str, name: str) -> bool:
    """Whether a glob matches a module's whole dotted name or the end of it (`query`, `layer.0.*`)."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def select(
    patterns: Sequence[str], maps: Sequence[RoleMap], modules: Iterable[str], *, key: str = "lora.targets"
) -> tuple[Target, ...]:
    """The targets of `patterns`, each once, in module order; raises UserError for a pattern without matches.

    A glob adapts a whole fused projection, and overrides roles that name parts of it.
    """
    modules = list(modules)
    found: dict[str, dict[str, Target]] = {}
    for pattern in patterns:
        hits = _by_role(pattern, maps) or [Target(m, WHOLE, None) for m in modules if matches(pattern, m)]
        if not hits:
            raise UserError(_no_match(key, pattern, maps, modules))
        for hit in hits:
            found.setdefault(hit.name, {})[hit.block] = hit
    order = [*dict.fromkeys(m.role for m in maps)]  # so that the order of the patterns does not matter
    chosen = []
    for name in modules:
        blocks = found.pop(name, {})
        chosen += [blocks[WHOLE]] if WHOLE in blocks else [blocks[role] for role in order if role in blocks]
    assert not found, f"maps outside the adaptable modules: {sorted(found)}"
    return tuple(chosen)


def _by_role(pattern: str, maps: Sequence[RoleMap]) -> list[Target]:
    wanted = [m for m in maps if pattern in (ALL, m.role)]
    return [Target(m.name, WHOLE if m.rows is None else m.role, m.rows) for m in wanted]


def _no_match(key: str, pattern: str, maps: Sequence[RoleMap], modules: Sequence[str]) -> str:
    roles = [*dict.fromkeys(m.role for m in maps), ALL]
    ends = [*dict.fromkeys(name.rsplit(".", 1)[-1] for name in modules)]
    near = difflib.get_close_matches(pattern, [*ends, *roles], n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"modules end in {', '.join(ends)}"
    return f"{key}: {pattern!r} matches no linear map of this backbone; roles: {', '.join(roles)}; {hint}"


def _inside(name: str, parents: Sequence[str]) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)
