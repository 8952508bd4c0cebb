"""A shortcut takes the place of a library's own forward, and stays only where the model gives the same numbers.

It is tried at load, on two short texts, one of them padded: a release of transformers that calls its layers in another
way gets its own forward back, which is slower and gives the same numbers.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["short_texts", "use_shortcut"]

TOKENS = 18  # a length at which bf16's softmax is in fp32
# Of the norm of the hidden states. A shortcut sums in the order of the forward that it replaces, so that rounding is
# all that could set them apart: fp32 has 6e-8, bf16 4e-3 for each of a model's operations.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
HALF_TOLERANCE = 3e-2


def use_shortcut(model: Any, apply: Callable[[Any], bool], undo: Callable[[Any], None], *, name: str) -> str | None:
    """Applies a shortcut that keeps the model's numbers; else undoes it, and gives the line that says so.

    apply: False where the shortcut is not for this model, which it then leaves as it was.
    """
    try:
        if not apply(model):
            return None
        found = _hidden_states(model)
    except Exception as error:  # whatever another release of transformers does with an argument
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


def _line(name: str, why: str) -> str:
    import transformers

    return f"{name} does not work with transformers {transformers.__version__} ({why}); its own, slower forward is used"


def short_texts(model: Any, *, beside: int = 0) -> dict[str, Tensor]:
    """input_ids and attention_mask of two texts, the second padded on the right, on the model's device.

    Each ends in one eos token, as T5's classifier wants it; no other token is special. beside: positions that virtual
    tokens take. A model with few positions gets texts of two tokens at least.
    """
    config, vocabulary = model.config, len(model.get_input_embeddings().weight)
    positions = getattr(config, "max_position_embeddings", None)  # T5 and BLOOM have none
    length = TOKENS if positions is None else max(2, min(TOKENS, positions - beside - 2))  # RoBERTa's begin at 2
    pad = 0 if config.pad_token_id is None else config.pad_token_id
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    words = [token for token in range(min(vocabulary, 3 * TOKENS)) if token not in (pad, *ends)]
    ids = torch.tensor([words[i % len(words)] for i in range(2 * length)]).view(2, length)
    mask = torch.ones_like(ids)
    mask[1, 2 * length // 3 :] = 0
    if ends[0] is not None:
        ids[range(2), mask.sum(1) - 1] = ends[0]
    return {"input_ids": ids.where(mask == 1, pad).to(model.device), "attention_mask": mask.to(model.device)}


def _hidden_states(model: Any) -> Tensor:
    """The last hidden states (texts, positions, d) of the texts, without dropout; padding's are 0."""
    was_training, texts = model.training, short_texts(model)
    model.eval()
    with torch.no_grad():
        found: Tensor = model.base_model(**texts)[0]
    model.train(was_training)
    return found * texts["attention_mask"][:, : found.shape[1], None]
