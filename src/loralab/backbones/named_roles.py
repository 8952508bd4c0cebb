"""Targets by a family's own module names -> the roles that select the same maps, without loading the model."""

from collections.abc import Sequence

from loralab.backbones.families import ROLES, family_of

__all__ = ["as_roles"]

_OUTSIDE_TOO = ("dense",)  # also the name of a map outside the blocks, such as BERT's pooler, which has no role


def as_roles(targets: Sequence[str], model_type: str) -> list[str]:
    """[query, value] -> [q, v] for BERT; unchanged where no set of roles is known to select the same maps.

    Unchanged are: roles; globs; a part of a role's maps; a fused projection, which one adapter adapts as a whole; a
    name that maps of several roles, or maps outside the blocks, share.
    """
    paths = {path: role for path, role in family_of(model_type).maps.items() if isinstance(role, str)}
    ends: dict[str, set[str]] = {}
    for path, role in paths.items():
        ends.setdefault(path.rpartition(".")[2], set()).add(role)
    found: set[str] = set()
    for target in targets:
        hits = {path for path in paths if f".{path}".endswith(f".{target}")}
        end = target.rpartition(".")[2]
        if target in ROLES:
            hits = {path for path, role in paths.items() if role == target}
        elif len(ends.get(end, ())) != 1 or end in _OUTSIDE_TOO:
            return list(targets)
        found |= hits
    roles = [role for role in ROLES if role in {paths[path] for path in found}]
    whole = {path for path, role in paths.items() if role in roles}
    return roles if found == whole and not set(targets) <= set(ROLES) else list(targets)
