"""Values that OmegaConf takes literally: `${` is escaped, so that it starts no interpolation.

OmegaConf reads `\\${` as `${`. A backslash before that is itself escaped, and all others stay as they are.
"""

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["literal"]

_OPENING = re.compile(r"(\\*)\$\{")


def literal(value: Any) -> Any:
    """A copy of plain values (texts, numbers, lists, mappings) that OmegaConf resolves to exactly `value`."""
    if isinstance(value, str):
        return _OPENING.sub(lambda found: found[1] * 2 + r"\${", value)
    if isinstance(value, Mapping):
        return {key: literal(each) for key, each in value.items()}
    return [literal(each) for each in value] if isinstance(value, (list, tuple)) else value
