"""Whether a generator predicts each token from those before it only, measured on a short text.

Transformers has generators that read a text in both directions unless they are called in a way of their own (XLNet).
Trained on whole texts they would see the answer. The check runs when a generator is loaded whose family has no row in
families.py.
"""

from typing import Any

import torch
from torch import Tensor

from loralab.backbones.shortcuts import short_texts

__all__ = ["looks_ahead"]

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}  # of the logits, relative to the largest
HALF_TOLERANCE = 0.1


def looks_ahead(model: Any) -> bool:
    """Whether another last token changes the logits before it. The model is in evaluation mode."""
    both = short_texts(model)
    text = {name: value[:1] for name, value in both.items()}
    name = "input_ids"
    if model.config.is_encoder_decoder:
        name = "decoder_input_ids"
        text[name] = text["input_ids"][:, :6]
    found = _logits(model, text)
    other = text[name].clone()
    other[:, -1] = text[name][:, 0]
    apart = (_logits(model, text | {name: other}) - found)[:, :-1].abs().max() / found.abs().max()
    return bool(apart > TOLERANCE.get(model.dtype, HALF_TOLERANCE))


def _logits(model: Any, text: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(**text).logits.double()
    return found
