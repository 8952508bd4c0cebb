"""Source -> frozen backbone with a trainable head, and its tokenizer. The slow half: imports torch and transformers."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from loralab.backbones import tiny
from loralab.backbones.attention import use_eager, use_fp32_softmax
from loralab.backbones.checkpoint import read_json
from loralab.backbones.families import KNOWN_FAMILIES, LinearMap, linear_maps
from loralab.backbones.first_token import narrow_last_layer, widen_last_layer
from loralab.backbones.head import head_of, prepare_head
from loralab.backbones.shortcuts import use_shortcut
from loralab.backbones.source import Source
from loralab.backbones.weights import attention_of, one_line, quiet, read_config, read_weights
from loralab.compat.transformers import classifiers
from loralab.errors import UserError
from loralab.imports import without_collection

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Backbone", "fp32_softmax", "load", "load_tokenizer"]

_SENTENCEPIECE = {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf"}  # pip's name -> module


@dataclass
class Backbone:
    """A loaded backbone.

    `head` are the paths of the trained modules. `maps` is empty for a family whose roles are not known
    (linear_maps says so in its error); globs over module names still work there. `seq2seq`: whether it is an encoder
    with a decoder that generates. notes: a line for each thing that the installed libraries make slower.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    maps: tuple[LinearMap, ...]
    head: tuple[str, ...]
    source: Source
    seq2seq: bool = False
    notes: tuple[str, ...] = ()


def load(
    source: Source,
    *,
    labels: int,
    regression: bool,
    dropout: float,
    attention: Literal["auto", "eager", "sdpa"],
    dtype: torch.dtype,
    device: torch.device | str,
    seed: int,
    class_names: Sequence[str] = (),
) -> Backbone:
    """The model with `labels` outputs, frozen in `dtype` but for the head, which is trainable and always fp32.

    The new part of the head depends on `seed` alone: equal bytes whatever `dtype`, `device` and the state
    of the global RNG, which is left as it was. `dropout` replaces every dropout probability of the config.
    `attention` auto is eager on a CPU (where SDPA's backward is slow) and SDPA elsewhere, if the family has it; eager
    has its softmax in fp32 there. Where the head reads the first position alone, the last layer computes that one
    alone. `class_names` become id2label. In fp16, T5 keeps the maps that overflow in fp32.
    Raises UserError for weights that are incomplete, damaged or unsafe.
    """
    device = torch.device(device)
    with quiet(), torch.random.fork_rng(devices=[]):
        tokenizer = load_tokenizer(source)
        config = read_config(source, dropout=dropout, pad_id=cast(int, tokenizer.pad_token_id))
        _set_labels(config, labels, regression, class_names)
        model_class = _model_class(config, source)
        implementation = attention_of(model_class, attention, device, source)
        model, absent = read_weights(source, model_class, config, implementation, dtype)
        head = head_of(model, absent, source)
        model.requires_grad_(False)
        prepare_head(model, head, absent, seed)
        notes = [use_shortcut(model, narrow_last_layer, widen_last_layer, name="the last layer for one position alone")]
        notes.append(fp32_softmax(model, implementation, device))
    model.eval().to(device)
    maps = linear_maps(model) if source.family in KNOWN_FAMILIES else ()
    return Backbone(model, tokenizer, maps, head, source, notes=tuple(note for note in notes if note is not None))


def fp32_softmax(model: Any, implementation: str, device: torch.device) -> str | None:
    """Has a half-precision model on a CPU compute eager attention's softmax in fp32; a line where that is not to be."""
    if implementation != "eager" or device.type != "cpu" or model.dtype == torch.float32:
        return None
    return use_shortcut(model, use_fp32_softmax, use_eager, name="eager attention with its softmax in fp32")


@without_collection()
def load_tokenizer(source: Source) -> "PreTrainedTokenizerBase":
    """The source's tokenizer: pads on the right (with eos where it has no pad token), knows the longest input."""
    from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

    if source.directory is None:
        return tiny.make_tokenizer(source.name)
    _check_sentencepiece(source.directory, source.key)
    with quiet():
        try:
            kind: Any = PreTrainedTokenizerFast if _is_generic(source.directory, source.key) else AutoTokenizer
            tokenizer = kind.from_pretrained(source.directory, local_files_only=True, trust_remote_code=False)
            config = AutoConfig.from_pretrained(source.directory, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # tokenizers raise bare Exception for a damaged file
            raise UserError(
                f"{source.key}: {source.directory}: the tokenizer cannot be loaded: {one_line(error)}"
            ) from error
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise UserError(f"{source.key}: {source.directory}: its tokenizer has neither a pad nor an eos token")
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    longest = _longest(config)
    if longest is not None:
        tokenizer.model_max_length = min(tokenizer.model_max_length, longest)
    return cast("PreTrainedTokenizerBase", tokenizer)


def _check_sentencepiece(directory: Path, key: str) -> None:
    """A SentencePiece file alone (DeBERTa-v3) needs two packages; transformers' error would name neither."""
    if (directory / "tokenizer.json").is_file() or not any(directory.glob("*.model")):
        return
    lacking = [pip for pip, module in _SENTENCEPIECE.items() if not _is_installed(module)]
    if lacking:
        raise UserError(
            f"{key}: the tokenizer in {directory} needs SentencePiece; run: pip install {' '.join(lacking)}"
        )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # its parent is missing, or was blocked
        return False


def _is_generic(directory: Path, key: str) -> bool:
    """Whether tokenizer.json is the whole truth; for some families (Qwen2) AutoTokenizer would not believe it."""
    settings = directory / "tokenizer_config.json"
    if not settings.is_file() or not (directory / "tokenizer.json").is_file():
        return False
    return read_json(settings, key).get("tokenizer_class") in ("TokenizersBackend", "PreTrainedTokenizerFast")


def _longest(config: "PretrainedConfig") -> int | None:
    """Tokens that fit the position table; None where positions are relative without a table (T5, BLOOM)."""
    for key in ("max_position_embeddings", "n_positions"):
        longest = config.to_dict().get(key)
        if isinstance(longest, int) and longest > 0 and config.model_type != "t5":
            # These three count positions from padding_idx + 1, so the table has two rows of no use.
            offset = 2 if config.model_type in ("roberta", "xlm-roberta", "mpnet") else 0
            return longest - offset
    return None


def _set_labels(config: "PretrainedConfig", labels: int, regression: bool, class_names: Sequence[str]) -> None:
    assert labels == 1 or not regression, "a regression has one output"
    assert len(class_names) in (0, labels), "one name a class"
    config.num_labels = labels
    if class_names:
        config.id2label = dict(enumerate(class_names))
        config.label2id = {name: i for i, name in enumerate(class_names)}
    config.problem_type = "regression" if regression else "single_label_classification"


@without_collection()
def _model_class(config: "PretrainedConfig", source: Source) -> Any:
    """The family's sequence classifier."""
    classes = classifiers()
    if type(config) not in classes:
        raise UserError(
            f"{source.key}: {source.origin} is a {source.family!r} model, which cannot classify sequences; "
            f"supported families: {', '.join(KNOWN_FAMILIES)}"
        )
    return classes[type(config)]
