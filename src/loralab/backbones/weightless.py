"""A backbone without its numbers: the modules that `load` returns, made from config.json alone."""

import inspect
from typing import Any, cast

import torch

from loralab.backbones.attention import use_fp32_softmax, use_grouped
from loralab.backbones.families import kind_of, linear_maps
from loralab.backbones.first_token import narrow_last_layer
from loralab.backbones.head import head_of, prepare_head
from loralab.backbones.load import Backbone
from loralab.backbones.quantise import quantise_maps
from loralab.backbones.rms_norm import unite_norms
from loralab.backbones.source import Source
from loralab.backbones.weights import read_config
from loralab.compat.transformers import classifiers, generators, random_model

__all__ = ["weightless"]

CLASSES = 2  # of a classifier; a head is small beside its backbone


def weightless(
    source: Source, *, generates: bool, dropout: float, attention: str, dtype: torch.dtype, quantize: str | None
) -> Backbone:
    """The backbone of a source on the device `meta`, without its tokenizer; to be called inside `torch.device("meta")`.

    Shortcuts are applied unchecked, and the head is that of a checkpoint without one.
    """
    config: Any = read_config(source, dropout=dropout, pad_id=0)
    seq2seq = generates and kind_of(source.family) == "encoder_decoder"
    if generates:
        config.is_encoder_decoder = seq2seq
        model = random_model(generators(seq2seq=seq2seq)[type(config)], config, attention).to(dtype)
        head: tuple[str, ...] = ()
    else:
        config.num_labels = CLASSES
        model = random_model(classifiers()[type(config)], config, attention).to(dtype)
        prefix = f"{model.base_model_prefix}."
        absent = frozenset(name for name, _ in model.named_parameters() if not name.startswith(prefix))
        head = head_of(model, absent, source)
    model.requires_grad_(False)
    prepare_head(model, head, frozenset(), seed=0)
    if quantize is not None:
        quantise_maps(
            model, quantize, head=head, dtype=dtype, device=torch.device("meta"), name=source.name, blank=True
        )
    if not generates:
        narrow_last_layer(model)
    unite_norms(model)
    if attention == "eager":
        use_grouped(model)
        if dtype != torch.float32:
            use_fp32_softmax(model)
    at_targets = generates and not seq2seq and "logits_to_keep" in inspect.signature(model.forward).parameters
    tokenizer = cast(Any, None)
    return Backbone(model, tokenizer, linear_maps(model), head, source, seq2seq=seq2seq, at_targets=at_targets)
