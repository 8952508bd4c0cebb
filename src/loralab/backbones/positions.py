"""How many tokens fit the position tables of a loaded model, from the tables themselves.

The rows of a table and the rows that it never uses differ by family: RoBERTa-like models count from the padding id + 1,
OPT and BART-like ones skip two rows. A model with rotary or relative positions has no table.
"""

import re
from typing import Any, cast

from torch import Tensor, nn

__all__ = ["longest_answer", "longest_text"]

# wpe (GPT-2), embed_positions (OPT, BART), position_embeddings (BERT), position_embedding, positions_embed (GPT)
_TABLE = re.compile(r"(?:^|\.)(?:\w*position_?(?:al_)?embed\w*|embed_positions|positions_embed|wpe)$")

_NO_TEXT = re.compile(r"(?:^|\.)\w*(?:vision|visual|image|audio)")  # parts of a composite model (Gemma 3)


def longest_text(model: Any) -> int | None:
    """The most tokens that a text may have by the tables of the model; None where it has none.

    A classifier with a decoder gives the text to both halves.
    """
    both = not (model.config.is_encoder_decoder and model.can_generate())
    return min((rows for name, rows in _tables(model) if both or not _in_decoder(name)), default=None)


def longest_answer(model: Any) -> int | None:
    """The most tokens that the decoder of an encoder-decoder may generate; None where it has no table."""
    return min((rows for name, rows in _tables(model) if _in_decoder(name)), default=None)


def _in_decoder(name: str) -> bool:
    return "decoder" in name.split(".")


def _tables(model: Any) -> list[tuple[str, int]]:
    """The path of each table of absolute positions, and the number of tokens that it serves."""
    found = [
        (name, _usable(module))
        for name, module in model.named_modules()
        if _TABLE.search(name)
        and not _NO_TEXT.search(name)
        and "relative" not in name
        and getattr(getattr(module, "weight", None), "ndim", 0) == 2
    ]
    if isinstance(biased := getattr(model.config, "max_seq_len", None), int):  # MPT makes so many biases
        found.append(("", biased))
    return found


def _usable(table: nn.Module) -> int:
    rows = len(cast(Tensor, table.weight))
    # OPT and BART number positions from an offset, RoBERTa from after its padding row; a plain table has neither
    offset, padding = getattr(table, "offset", None), getattr(table, "padding_idx", None)
    if isinstance(offset, int):
        return rows - offset
    return rows if padding is None else rows - padding - 1
