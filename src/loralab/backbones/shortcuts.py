"""Shortcuts: faster replacements of a library's forward, kept only if the model's outputs stay the same.

A shortcut is checked when the model is loaded, on two short texts, one of them padded. If the installed transformers
calls its layers differently, its own forward is restored, which is slower and has the same outputs.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

__all__ = ["restore_forwards", "short_texts", "use_shortcut"]

TOKENS = 18  # a length for which attention.py computes a bf16 softmax in fp32
# Allowed difference, relative to the norm of the hidden states. A shortcut sums in the order of the forward that it
# replaces, so that they differ by rounding at most: 6e-8 per operation of the model in fp32, 4e-3 in bf16.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
HALF_TOLERANCE = 3e-2


def use_shortcut(model: Any, apply: Callable[[Any], bool], undo: Callable[[Any], None], *, name: str) -> str | None:
    """Applies a shortcut if it keeps the model's outputs; otherwise undoes it and returns a line with the reason.

    apply: returns False, and changes nothing, if the shortcut is not meant for this model.
    """
    try:
        if not apply(model):
            return None
        found = _hidden_states(model)
    except Exception as error:  # another release of transformers may raise any error
        undo(model)
        return _line(name, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
    undo(model)
    wanted = _hidden_states(model)
    apply(model)
    positions = min(found.shape[1], wanted.shape[1])
    found, wanted = found[:, :positions].double(), wanted[:, :positions].double()
    apart = float((found - wanted).norm() / wanted.norm())
    if apart <= TOLERANCE.get(model.dtype, HALF_TOLERANCE):
        return None
    undo(model)
    return _line(name, f"the hidden states differ by {apart:.2g} of their norm")


def restore_forwards(model: Any, replacement: Callable[..., Any]) -> None:
    """Every module whose forward is a `partial` of `replacement` computes its family's own again."""
    for module in model.modules():
        forward = vars(module).get("forward")
        if isinstance(forward, partial) and forward.func is replacement:
            del module.forward


def _line(name: str, why: str) -> str:
    import transformers

    return f"{name} does not work with transformers {transformers.__version__} ({why}); its own, slower forward is used"


def short_texts(model: Any, *, beside: int = 0) -> dict[str, Tensor]:
    """input_ids and attention_mask of two texts, the second padded on the right, on the model's device.

    Each ends with one eos token, which T5's classifier requires; no other token is special. beside: number of positions
    that virtual tokens occupy. The texts are shorter for a model with few positions, but have at least two tokens.
    """
    config = model.config
    vocabulary = getattr(config.get_text_config(), "vocab_size", 3 * TOKENS)  # CANINE reads characters, without a table
    positions = getattr(config, "max_position_embeddings", None)  # T5 and BLOOM have none
    length = TOKENS if positions is None else max(2, min(TOKENS, positions - beside - 2))  # RoBERTa's begin at 2
    pad, end = getattr(config, "pad_token_id", None) or 0, getattr(config, "eos_token_id", None)
    ends = end if isinstance(end, list) else [end]
    if ends[0] is not None and ends[0] >= vocabulary:  # a default of the family's config, in a small vocabulary
        ends = [None]
    words = [token for token in range(min(vocabulary, 3 * TOKENS)) if token not in (pad, *ends)]
    ids = torch.tensor([words[i % len(words)] for i in range(2 * length)]).view(2, length)
    mask = torch.ones_like(ids)
    mask[1, 2 * length // 3 :] = 0
    if ends[0] is not None:
        ids[range(2), mask.sum(1) - 1] = ends[0]
    return {"input_ids": ids.where(mask == 1, pad).to(model.device), "attention_mask": mask.to(model.device)}


def _hidden_states(model: Any) -> Tensor:
    """The last hidden states (texts, positions, d) of the short texts, without dropout; 0 at padding."""
    was_training, texts = model.training, short_texts(model)
    model.eval()
    with torch.no_grad():
        found: Tensor = model.base_model(**texts)[0]
    model.train(was_training)
    return found * texts["attention_mask"][:, : found.shape[1], None]
