"""Whether a text's outputs depend on the texts beside it in a batch, measured on two short texts.

Batches are padded on the right, and models read an attention mask. XLNet classifies by the last position, so its texts
have to end there; FNet has no mask at all, and YOSO draws random hashes. The check runs when a model is loaded.
"""

import math
from typing import Any

import torch
from torch import Tensor

from loralab.backbones.reading import Finding
from loralab.backbones.shortcuts import short_texts
from loralab.backbones.source import Source
from loralab.errors import UserError

__all__ = ["apart_by_padding", "check_padding"]

# Allowed difference of the logits, relative to the largest. Rounding gives up to 8e-7 in fp32 and 8e-3 in bf16 (21 tiny
# families and MiniLM); what reads the padding gives 8e-3 (ConvBERT, by a convolution), 0.08 (FNet) or 0.2 (YOSO).
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
HALF_TOLERANCE = 0.06
MOST_APART = 0.5  # beyond it, the outputs say more about the padding than about the text


def check_padding(model: Any, source: Source) -> Finding:
    """Whether a text's outputs depend on its batch; a classifier that needs its padding on the left gets it there.

    Random weights are not checked. Raises UserError where the outputs are not finite because the weights are not.
    """
    if source.directory is None:
        return Finding()
    apart = apart_by_padding(model)
    if math.isnan(apart):
        _check_finite(model, source)
        return Finding()  # an overflow of half precision: the training ends as diverged
    if apart <= _allowed(model):
        return Finding()
    if not model.can_generate():
        moved = model.register_forward_pre_hook(_move_padding, with_kwargs=True)
        if apart_by_padding(model) <= _allowed(model):
            return Finding()
        moved.remove()
    line = (
        f"{source.key}: the outputs of {source.origin}, a {source.family!r} model, for a text depend on the texts "
        f"beside it: alone and in a padded batch they differ by {apart:.2g} of the largest logit"
    )
    if apart > MOST_APART or _draws(model):
        return Finding(unfit=f"{line}; choose another backbone, e.g. model=minilm")
    return Finding(note=f"{line}, so scores change with train.batch_size")


def _check_finite(model: Any, source: Source) -> None:
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise UserError(
                f"{source.key}: {source.directory}: {name} holds NaN or infinite numbers, and so do the outputs; "
                "copy the weights again"
            )


def apart_by_padding(model: Any) -> float:
    """How far the logits of a short text, alone and padded beside a longer one, are apart, relative to the largest.

    NaN where they are not finite. A model that generates is compared at the next token too, and a decoder with the
    padding on the left. The model is in evaluation mode; the random state does not change. Takes 22 ms with
    MiniLM on one thread.
    """
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices=devices):
        both = short_texts(model)
        alone = {name: value[1:, : int(both["attention_mask"][1].sum())] for name, value in both.items()}
        apart = _apart(_logits(model, both), _logits(model, alone))
        if model.can_generate():
            _, padded = ((), both) if model.config.is_encoder_decoder else _move_padding(model, (), both)
            apart = max(apart, _apart(_next_logits(model, padded), _next_logits(model, alone)))
    return apart


def _draws(model: Any) -> bool:
    """Whether two equal calls have different outputs."""
    with torch.no_grad(), torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        texts = short_texts(model)
        return not torch.equal(_logits(model, texts), _logits(model, texts))


def _allowed(model: Any) -> float:
    """The largest difference that rounding explains in the model's precision."""
    return TOLERANCE.get(model.dtype, HALF_TOLERANCE)


def _apart(together: Tensor, alone: Tensor) -> float:
    """The largest difference between the second row of `together` and `alone`, which may have fewer positions."""
    largest, apart = float(alone.abs().max()), float((together[1:, : alone.shape[1]] - alone).abs().max())
    return apart if apart == 0 else apart / max(largest, 1e-30)


def _move_padding(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A hook before forward that moves each text's padding from its right to its left."""
    mask = named.get("attention_mask")
    if mask is None:
        return given, named
    width = mask.shape[1]
    padding = width - mask.sum(1, keepdim=True)
    at = (torch.arange(width, device=mask.device) - padding) % width
    moved = {
        name: value.gather(1, at)
        for name, value in named.items()
        if name in ("input_ids", "attention_mask", "token_type_ids") and value is not None
    }
    return given, {**named, **moved}


def _logits(model: Any, texts: dict[str, Tensor]) -> Tensor:
    if model.config.is_encoder_decoder and model.can_generate():
        texts = {**texts, "decoder_input_ids": texts["input_ids"][:, :2]}
    found: Tensor = model(**texts).logits.double()
    return found


def _next_logits(model: Any, texts: dict[str, Tensor]) -> Tensor:
    """The logits of the first token that `generate` adds, (b, vocabulary)."""
    made = model.generate(
        **texts, max_new_tokens=1, do_sample=False, use_cache=True, return_dict_in_generate=True, output_logits=True
    )
    found: Tensor = made.logits[0].double()
    return found
