"""Checks token ids against the tables that a backbone looks them up in, before training: an id beyond one is an error.

Tokens may have been added to a tokenizer without resizing the model's embeddings. Only ids that occur matter.
"""

import inspect
from collections.abc import Iterable
from typing import Any

import numpy.typing as npt

from loralab.backbones.load import Backbone
from loralab.errors import UserError

__all__ = ["check_ids", "check_types"]

Ids = npt.NDArray[Any]


def check_ids(backbone: Backbone, ids: Iterable[Ids]) -> None:
    """Raises UserError where a token id has no row in the embedding table."""
    model: Any = backbone.model
    rows, source = getattr(model.config.get_text_config(), "vocab_size", None), backbone.source
    highest = _highest(ids)
    if rows is None or highest < rows:
        return
    raise UserError(
        f"{source.key}: the token {backbone.tokenizer.convert_ids_to_tokens(highest)!r} of the task's texts has id "
        f"{highest}, and the embedding table of {source.origin} has {rows:,} rows (ids 0 to {rows - 1}): its tokenizer "
        "has tokens that the model lacks; call model.resize_token_embeddings(len(tokenizer)) and save the checkpoint "
        "again, or save the tokenizer without them"
    )


def check_types(backbone: Backbone, types: Iterable[Ids]) -> None:
    """Raises UserError where the tokenizer marks the second text of a pair and the model has no place for the mark."""
    model: Any = backbone.model
    highest, source = _highest(types), backbone.source
    if highest < 1:
        return
    rows = getattr(model.config, "type_vocab_size", None) or None  # DeBERTa: 0, types are ignored
    takes = "token_type_ids" in inspect.signature(type(model).forward).parameters
    if takes and (rows is None or highest < rows):
        return
    has = f"has {rows} (type_vocab_size)" if takes else "takes none"
    raise UserError(
        f"{source.key}: the tokenizer of {source.origin} gives token types up to {highest}, and the model {has}; "
        "remove token_type_ids from model_input_names in tokenizer_config.json"
    )


def _highest(arrays: Iterable[Ids]) -> int:
    return max((int(array.max()) for array in arrays if len(array)), default=-1)
