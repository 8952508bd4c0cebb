"""Source -> frozen backbone that generates: a decoder, or an encoder with a decoder. Imports torch and transformers."""

from typing import Any, Literal

import torch

from loralab.backbones.families import DECODERS, ENCODER_DECODERS, linear_maps
from loralab.backbones.load import Backbone, fp32_softmax, load_tokenizer
from loralab.backbones.source import Source
from loralab.backbones.weights import attention_of, quiet, read_config, read_weights
from loralab.compat.transformers import generators
from loralab.errors import UserError
from loralab.imports import without_collection

__all__ = ["check_generates", "load_generator"]


def load_generator(
    source: Source,
    *,
    dropout: float,
    attention: Literal["auto", "eager", "sdpa"],
    dtype: torch.dtype,
    device: torch.device | str,
) -> Backbone:
    """The model as it was pretrained, output embeddings and all, frozen in `dtype`; tied as in the checkpoint.

    `dropout` and `attention` as in `load`; the caller's random state is left as it was. What the checkpoint says about
    how to generate (samples, penalties) is dropped: who decodes says it. In fp16, T5 keeps the maps that overflow in
    fp32. Raises UserError for a family that does not generate, and for weights that are incomplete.
    """
    check_generates(source)
    device = torch.device(device)
    with quiet(), torch.random.fork_rng(devices=[]):
        tokenizer = load_tokenizer(source)
        config: Any = read_config(source, dropout=dropout, pad_id=tokenizer.pad_token_id)
        model_class = _model_class(config)
        implementation = attention_of(model_class, attention, device, source)
        model, absent = read_weights(source, model_class, config, implementation, dtype)
        if source.directory is not None and absent:
            more = ", ..." if len(absent) > 1 else ""
            raise UserError(
                f"{source.key}: {source.origin} lacks {len(absent)} tensors of a {source.family!r} model that "
                f"generates: {min(absent)}{more}; give a checkpoint saved with its output embeddings"
            )
        model.requires_grad_(False)
        model.generation_config = _generation(config, tokenizer.eos_token_id)
        note = fp32_softmax(model, implementation, device)
    model.eval().to(device)
    return Backbone(
        model, tokenizer, linear_maps(model), (), source,
        seq2seq=source.family in ENCODER_DECODERS, notes=() if note is None else (note,),
    )  # fmt: skip


def check_generates(source: Source) -> None:
    """Raises UserError unless the source's family generates; loads nothing."""
    if source.family not in DECODERS | ENCODER_DECODERS:
        raise UserError(
            f"{source.key}: {source.origin} is a {source.family!r} model, which does not generate; families that do: "
            f"{', '.join(sorted(DECODERS | ENCODER_DECODERS))}; e.g. model=gpt2"
        )


@without_collection()
def _model_class(config: Any) -> Any:
    return generators(seq2seq=config.model_type in ENCODER_DECODERS)[type(config)]


def _generation(config: Any, eos_id: int) -> Any:
    from transformers import GenerationConfig

    start = getattr(config, "decoder_start_token_id", None)
    return GenerationConfig(eos_token_id=eos_id, pad_token_id=config.pad_token_id, decoder_start_token_id=start)
