"""Loads a source as a frozen backbone with its tokenizer: a classifier with a trainable head, or a generator.

Imports torch and transformers, which `source.py` does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch

from loralab.backbones.attention import use_eager, use_fp32_softmax, use_grouped
from loralab.backbones.causality import looks_ahead
from loralab.backbones.dequantise import dequantise
from loralab.backbones.families import FAMILIES, LinearMap, kind_of, linear_maps
from loralab.backbones.first_token import narrow_last_layer, widen_last_layer
from loralab.backbones.head import head_of, prepare_head
from loralab.backbones.label_order import order_rows
from loralab.backbones.padding import check_padding
from loralab.backbones.positions import longest_text
from loralab.backbones.quantise import check_installed, quantise_maps
from loralab.backbones.reading import reading
from loralab.backbones.rms_norm import split_norms, unite_norms
from loralab.backbones.shortcuts import use_shortcut
from loralab.backbones.source import Source
from loralab.backbones.target_logits import computes_at_targets
from loralab.backbones.tokenizer import load_tokenizer
from loralab.backbones.weights import attention_of, quiet, read_config, read_weights
from loralab.backbones.widen import widened
from loralab.compat.transformers import classifiers, generators
from loralab.errors import UserError
from loralab.imports import without_collection
from loralab.text import reason

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Backbone", "load", "load_generator"]

_FIRST_TOKEN = "the last layer for position 0 only"


@dataclass
class Backbone:
    """A loaded backbone.

    `head`: paths of the trained modules. `maps`: empty for a family whose roles are not known; globs over module names
    and `all` still work there. `seq2seq`: whether it is an encoder-decoder that generates. `notes`:
    one line for each shortcut that does not work with the installed libraries, and for a head whose classes have no
    names, and for a text's outputs that depend on its batch. `at_targets`: whether its forward computes logits at the
    targets only (target_logits.py). `unfit`: why it must not be trained; its head may still be
    replaced by a trained one.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    maps: tuple[LinearMap, ...]
    head: tuple[str, ...]
    source: Source
    seq2seq: bool = False
    at_targets: bool = False
    notes: tuple[str, ...] = ()
    unfit: str | None = None


def load(
    source: Source,
    *,
    labels: int,
    regression: bool,
    dropout: float,
    attention: str,
    dtype: torch.dtype,
    device: torch.device | str,
    seed: int,
    place: torch.device | str | None = None,
    class_names: Sequence[str] = (),
    quantize: str | None = None,
) -> Backbone:
    """A classifier with `labels` outputs: the backbone is frozen in `dtype`, the head is trainable and always fp32.

    The new tensors of the head depend on `seed` only: they have the same bytes for every `dtype`, `device` and state
    of the global RNG, which does not change. `dropout` replaces every dropout probability of the config.
    `attention`: auto, eager or sdpa. auto is eager on a CPU (where SDPA's backward is slow) and SDPA elsewhere, if the
    family has it. Eager attention in half precision on a CPU computes its softmax in fp32 (attention.py). Where the
    head reads only the first position, the last layer computes only that position. `class_names` become id2label; the
    rows of a head that the checkpoint brings are sorted by them. In fp16, T5 keeps the maps that overflow in fp32.
    place: where the weights stay, if not on the `device` that they are made for. quantize: nf4 or int8, of the
    backbone's linear maps (quantise.py), from the checkpoint's own numbers whatever `dtype` is; None: neither. Raises
    UserError for weights that are incomplete, damaged or unsafe.
    """
    device = torch.device(device)
    check_installed(quantize)
    dequantise(source)
    with quiet(), torch.random.fork_rng(devices=[]):
        tokenizer = load_tokenizer(source)
        config = read_config(source, dropout=dropout, pad_id=cast(int, tokenizer.pad_token_id))
        brought = dict(config.id2label or {})
        _set_labels(config, labels, regression, class_names)
        model_class = _classifier(config, source)
        implementation = attention_of(model_class, attention, device, source)
        model, absent = read_weights(source, model_class, config, implementation, None if quantize else dtype)
        head = head_of(model, absent, source)
        model.requires_grad_(False)
        prepare_head(model, head, absent, seed)
        order = order_rows(model, head, absent, brought=brought, wanted=class_names, source=source)
        model = widened(model, source, head=head, absent=absent, seed=seed)
        if quantize is not None:
            quantise_maps(model, quantize, head=head, dtype=dtype, device=device, name=source.name)
        model.eval()
        with reading(source, "the model does not work on a short text"):
            notes = [use_shortcut(model, narrow_last_layer, widen_last_layer, name=_FIRST_TOKEN)]
            notes += _faster_layers(model, implementation, device)
            model.to(device if place is None else place)
            padding = check_padding(model, source)
    _limit_length(tokenizer, model)
    maps = linear_maps(model)
    notes += [order.note, padding.note]
    return Backbone(
        model,
        tokenizer,
        maps,
        head,
        source,
        notes=tuple(note for note in notes if note is not None),
        unfit=order.unfit or padding.unfit,
    )


def load_generator(
    source: Source,
    *,
    dropout: float,
    attention: str,
    dtype: torch.dtype,
    device: torch.device | str,
    place: torch.device | str | None = None,
    quantize: str | None = None,
) -> Backbone:
    """The pretrained model with its output embeddings, frozen in `dtype`; weights are tied as in the checkpoint.

    `dropout`, `attention`, `place` and `quantize` are as in `load`; the global random state does not change. The
    checkpoint's generation settings (sampling, penalties) are dropped: the caller of `generate` sets them. In fp16, T5
    keeps the maps that overflow in fp32. Raises UserError for a family that does not generate, and for incomplete
    weights.
    """
    _check_generates(source)
    check_installed(quantize)
    seq2seq = kind_of(source.family) == "encoder_decoder"
    device = torch.device(device)
    dequantise(source)
    with quiet(), torch.random.fork_rng(devices=[]):
        tokenizer = load_tokenizer(source)
        config: Any = read_config(source, dropout=dropout, pad_id=tokenizer.pad_token_id)
        config.is_encoder_decoder = seq2seq
        with without_collection():
            model_class = generators(seq2seq=seq2seq)[type(config)]
        implementation = attention_of(model_class, attention, device, source)
        model, absent = read_weights(source, model_class, config, implementation, None if quantize else dtype)
        _check_complete(source, absent)
        if seq2seq and getattr(config, "decoder_start_token_id", None) is None:
            raise UserError(
                f"{source.key}: {source.origin}: its config.json has no decoder_start_token_id, the token "
                "that an answer starts from; add the one that it was trained with"
            )
        model = widened(model, source, head=(), absent=absent, seed=0)
        model.requires_grad_(False)
        if quantize is not None:
            quantise_maps(model, quantize, head=(), dtype=dtype, device=device, name=source.name)
        model.generation_config = _generation_config(config, tokenizer.eos_token_id)
        model.eval()
        with reading(source, "the model does not work on a short text"):
            notes = _faster_layers(model, implementation, device)
            model.to(device if place is None else place)
            padding = check_padding(model, source)
            at_targets = computes_at_targets(model)
    if source.family not in FAMILIES:
        _check_causal(model, source)
    _limit_length(tokenizer, model)
    return Backbone(
        model,
        tokenizer,
        linear_maps(model),
        (),
        source,
        seq2seq=seq2seq,
        at_targets=at_targets,
        notes=tuple(note for note in (*notes, padding.note) if note is not None),
        unfit=padding.unfit,
    )


def _limit_length(tokenizer: Any, model: Any) -> None:
    """Lowers the tokenizer's longest text to what the model's position tables have rows for."""
    longest = longest_text(model)
    if longest is not None:
        tokenizer.model_max_length = min(tokenizer.model_max_length, longest)


def _faster_layers(model: Any, implementation: str, device: torch.device) -> list[str | None]:
    """Applies the shortcuts inside layers: of norms, and of eager attention; a line for each that does not work."""
    notes = [use_shortcut(model, unite_norms, split_norms, name="RMSNorm as one function")]
    if implementation == "eager":
        notes.append(use_shortcut(model, use_grouped, use_eager, name="eager attention in groups"))
        if device.type == "cpu" and model.dtype != torch.float32:
            name = "eager attention with its softmax in fp32"
            notes.append(use_shortcut(model, use_fp32_softmax, use_eager, name=name))
    return notes


def _set_labels(config: "PretrainedConfig", labels: int, regression: bool, class_names: Sequence[str]) -> None:
    assert labels == 1 or not regression, "a regression has one output"
    assert len(class_names) in (0, labels), "one name per class"
    config.num_labels = labels
    if class_names:
        config.id2label = dict(enumerate(class_names))
        config.label2id = {name: i for i, name in enumerate(class_names)}
    config.problem_type = "regression" if regression else "single_label_classification"


@without_collection()
def _classifier(config: "PretrainedConfig", source: Source) -> Any:
    """The family's sequence classifier."""
    classes = classifiers()
    if type(config) not in classes:
        raise UserError(
            f"{source.key}: {source.origin} is a {source.family!r} model, which cannot classify sequences: "
            "transformers has no class for it; give another model, e.g. model=minilm"
        )
    return classes[type(config)]


def _check_generates(source: Source) -> None:
    """Raises UserError unless the source's family generates; loads nothing."""
    if kind_of(source.family) == "encoder":
        raise UserError(
            f"{source.key}: {source.origin} is a {source.family!r} model, an encoder, which does not generate; the "
            "decoders and encoder-decoders of transformers do, e.g. model=gpt2"
        )


def _check_causal(model: Any, source: Source) -> None:
    """Raises UserError for a generator that reads the tokens that it is to predict, or none at all."""
    try:
        ahead = looks_ahead(model)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"{source.key}: {source.origin} is a {source.family!r} model, which cannot compute a short text "
            f"({reason(error)}); give another model, e.g. model=gpt2"
        ) from error
    if ahead:
        raise UserError(
            f"{source.key}: {source.origin} is a {source.family!r} model, which reads the tokens that it is to predict "
            "and so cannot be trained to answer in text; give another model, e.g. model=gpt2"
        )


def _check_complete(source: Source, absent: frozenset[str]) -> None:
    """Raises UserError if a checkpoint lacks tensors; random weights are always complete."""
    if source.directory is not None and absent:
        more = ", ..." if len(absent) > 1 else ""
        raise UserError(
            f"{source.key}: {source.origin} lacks {len(absent)} tensors of a {source.family!r} model that "
            f"generates: {min(absent)}{more}; give a checkpoint saved with its output embeddings"
        )


def _generation_config(config: Any, eos_id: int) -> Any:
    """Greedy decoding with the model's special tokens, without the checkpoint's sampling settings."""
    from transformers import GenerationConfig

    start = getattr(config, "decoder_start_token_id", None)  # only an encoder-decoder has one
    return GenerationConfig(eos_token_id=eos_id, pad_token_id=config.pad_token_id, decoder_start_token_id=start)
