"""Logits at the targets' positions only: whether a decoder computes them, which transformers' latest releases do.

Most positions of a training text are its context, whose logits nobody reads, and a position's logits are as many as
the vocabulary's tokens: with SmolLM2-135M (49,152 tokens) they are a fifth of the products of a step.
"""

from typing import Any

import torch

from loralab.backbones.shortcuts import short_texts

__all__ = ["computes_at_targets"]

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}  # of the largest logit; a product of fewer rows is rounded apart
HALF_TOLERANCE = 3e-2


def computes_at_targets(model: Any) -> bool:
    """Whether `model(..., logits_to_keep=at)` returns logits (n, vocabulary), at the n True positions of `at` (b, t).

    Measured on short texts, in evaluation mode; older releases, and some families, ignore the argument or refuse it.
    """
    if model.config.is_encoder_decoder:
        return False
    texts = short_texts(model)
    at = texts["attention_mask"].bool()
    at[:, ::2] = False
    with torch.no_grad():
        wanted = model(**texts).logits[at].double()
        try:
            found = model(**texts, logits_to_keep=at).logits.double()
        except Exception:  # releases without the argument refuse it, each with an error of its own
            return False
    if found.shape != wanted.shape:
        return False
    apart = (found - wanted).abs().max() / wanted.abs().max()
    return bool(apart <= TOLERANCE.get(model.dtype, HALF_TOLERANCE))
