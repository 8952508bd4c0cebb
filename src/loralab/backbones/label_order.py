"""The order of the classes in a head that a checkpoint brings: its output rows are sorted by name, not by position.

config.id2label names the class of each row. A task sorts its classes in its own way, so that row 0 of a checkpoint may
be class 1 of the task, and training would start from inverted predictions.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from unicodedata import normalize

import torch
from torch import nn

from loralab.backbones.reading import Finding
from loralab.backbones.source import Source

__all__ = ["order_rows", "row_order"]

SHOWN = 6  # names in a message


def order_rows(
    model: Any,
    head: Sequence[str],
    absent: frozenset[str],
    *,
    brought: Mapping[int, str],
    wanted: Sequence[str],
    source: Source,
) -> Finding:
    """Moves the rows of the output layer so that row j is class `wanted[j]`; a note where the checkpoint has no names.

    Unfit where the checkpoint names other classes than the task. Does nothing for an output layer that the checkpoint
    lacks or has in another size, since it is new, and without `wanted` names.
    """
    if not wanted:
        return Finding()
    name = _output_layer(model, head, len(wanted))
    if name is None or f"{name}.weight" in absent:
        return Finding()
    names = [brought.get(row, "") for row in range(len(wanted))]
    if _unnamed(names) and sorted(names) != sorted(wanted):
        return Finding(
            note=f"the head of {source.origin} does not name its classes (id2label in config.json); its rows are taken "
            f"in the task's order: {_listed(wanted)}"
        )
    order = row_order(names, wanted)
    if order is None:
        return Finding(
            unfit=f"{source.key}: the head of {source.origin} has the classes {_listed(names)}, and the task has "
            f"{_listed(wanted)}; in its config.json give id2label the task's names, or remove id2label and label2id to "
            "take the rows in the task's order; or save the model without its head (AutoModel) to train a new one"
        )
    with torch.no_grad():
        for parameter in model.get_submodule(name).parameters():
            parameter.copy_(parameter[list(order)].clone())
    return Finding()


def row_order(brought: Sequence[str], wanted: Sequence[str]) -> tuple[int, ...] | None:
    """For each wanted name its place in `brought`; None unless both have the same names, each once.

    Names are compared as they are, then without regard to case, outer spaces and Unicode's form.
    """
    for form in (str, lambda name: normalize("NFC", str(name).strip()).casefold()):
        here, there = [form(name) for name in brought], [form(name) for name in wanted]
        if len(set(here)) == len(here) and sorted(here) == sorted(there):
            return tuple(here.index(name) for name in there)
    return None


def _unnamed(names: Sequence[str]) -> bool:
    """Whether the names are the default ones of transformers, in order, or missing."""
    return all(name in ("", f"LABEL_{row}") for row, name in enumerate(names))


def _output_layer(model: Any, head: Sequence[str], classes: int) -> str | None:
    """The path of the last linear map of the head outside the base model, if it has one output for each class."""
    linear = [
        f"{path}.{inner}".rstrip(".")
        for path in head
        if not path.startswith(f"{model.base_model_prefix}.")
        for inner, part in model.get_submodule(path).named_modules()
        if isinstance(part, nn.Linear) and part.out_features == classes
    ]
    return linear[-1] if linear else None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(str(name)[:40]) for name in names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
