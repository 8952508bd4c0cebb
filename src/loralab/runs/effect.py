"""Checks, on two short texts and before training, that the model's output depends on the trained parameters.

A backbone may compute by another path: a fused kernel that reads a weight without calling its module, or a release of
transformers that renames its cache. Training would then update an adapter or a prefix without effect and without error.
"""

from typing import Any

import torch
from torch import Tensor, nn

from loralab.backbones.load import Backbone
from loralab.backbones.shortcuts import short_texts
from loralab.errors import UserError
from loralab.methods.lora import lora_modules
from loralab.methods.prompts import VirtualTokens, virtual_tokens

__all__ = ["check_effect"]

REMEDY = "install another release of transformers, or choose another method"
SCALE = 2.0**12  # of the gradient, so that fp16 does not round it to 0; a power of 2 is exact


def check_effect(backbone: Backbone, method: str) -> tuple[str, ...]:
    """A warning for adapted maps without effect on the output; raises UserError where no trained parameter has one.

    The model is left unchanged. With virtual tokens, `generate` is checked too. Nothing is checked where virtual tokens
    leave fewer than five positions.
    """
    model: Any = backbone.model
    virtual = virtual_tokens(model)
    parts = _parts(model, backbone.head, virtual)
    beside = 0 if virtual is None else virtual.tokens
    positions = getattr(model.config, "max_position_embeddings", None)
    if not parts or (positions is not None and positions - beside < 5):
        return ()
    was_training = model.training
    model.eval()
    try:
        texts = short_texts(model, beside=beside)
        reached = _reached(model, texts, [p for part in parts.values() for p in part], seq2seq=backbone.seq2seq)
        generates = virtual is None or not model.can_generate() or _generates_alike(model, texts)
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(
            f"method.name: {method}: {_class(model)} cannot compute two short texts with it "
            f"({type(error).__name__}: {said}); {REMEDY}"
        ) from error
    model.train(was_training)
    for part, parameters in parts.items():
        if not any(p in reached for p in parameters):
            names = [] if part == "virtual tokens" else [*lora_modules(model)][:3]
            remedy = f"name other maps than {', '.join(names)} in lora.targets, or {REMEDY}" if names else REMEDY
            raise UserError(f"method.name: {method}: {_class(model)} ignores the {part}; {remedy}")
    if not generates:
        raise UserError(f"method.name: {method}: generate of {_class(model)} ignores the virtual tokens; {REMEDY}")
    return _unused(model, reached)


def _unused(model: nn.Module, reached: set[nn.Parameter]) -> tuple[str, ...]:
    """A warning that names the adapted maps with no parameter in `reached`."""
    adapted = lora_modules(model)
    trained = {name: [p for p in module.parameters() if p.requires_grad] for name, module in adapted.items()}
    unused = [name for name, parameters in trained.items() if not any(p in reached for p in parameters)]
    if not unused:
        return ()
    return (
        f"lora.targets: {len(unused)} of {len(adapted)} adapted maps do not change the output of two short texts, "
        f"so they may train nothing: {', '.join(unused[:3])}{', ...' if len(unused) > 3 else ''}",
    )


def _parts(model: nn.Module, head: tuple[str, ...], virtual: VirtualTokens | None) -> dict[str, list[nn.Parameter]]:
    """The trained parameters outside the head: those of virtual tokens, and all others."""
    own = set() if virtual is None else set(virtual.parameters())
    beside = [
        p
        for name, p in model.named_parameters()
        if p.requires_grad and p not in own and not any(name.startswith(f"{path}.") for path in head)
    ]
    parts = {"virtual tokens": [p for p in own if p.requires_grad], "trained parameters": beside}
    return {part: parameters for part, parameters in parts.items() if parameters}


def _reached(
    model: Any, texts: dict[str, Tensor], parameters: list[nn.Parameter], *, seq2seq: bool
) -> set[nn.Parameter]:
    """Those of `parameters` for which the logits have a nonzero gradient."""
    if seq2seq:
        texts = {**texts, "decoder_input_ids": texts["input_ids"][:, :2]}
    with torch.enable_grad():
        logits = model(**texts).logits.float()
        weights = torch.arange(1.0, logits.numel() + 1, device=logits.device).sin().view_as(logits)
        found = torch.autograd.grad((logits * weights).sum() * SCALE, parameters, allow_unused=True)
    return {p for p, gradient in zip(parameters, found, strict=True) if gradient is not None and bool(gradient.any())}


def _generates_alike(model: Any, texts: dict[str, Tensor]) -> bool:
    """Whether `generate` and a forward pass agree on the logits of the first new token."""
    text = {name: value[:1] for name, value in texts.items()}
    with torch.no_grad():
        wanted: Tensor = model(**text).logits[0, -1].float()
        found = model.generate(
            **text, max_new_tokens=1, do_sample=False, return_dict_in_generate=True, output_logits=True
        )
    apart = (found.logits[0][0].float() - wanted).norm() / wanted.norm()
    return bool(apart <= (1e-3 if model.dtype == torch.float32 else 5e-2))


def _class(model: Any) -> str:
    import transformers

    return f"{type(model).__name__} of transformers {transformers.__version__}"
