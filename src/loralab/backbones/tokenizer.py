"""Loads the tokenizer of a source; it pads on the right and limits inputs to the model's positions."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from loralab.backbones import tiny
from loralab.backbones.checkpoint import read_json
from loralab.backbones.families import family_of
from loralab.backbones.reading import reading
from loralab.backbones.source import Source
from loralab.backbones.weights import quiet
from loralab.errors import UserError
from loralab.imports import without_collection

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

__all__ = ["load_tokenizer"]

_SENTENCEPIECE = {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf"}  # pip's name -> module


@without_collection()
def load_tokenizer(source: Source) -> "PreTrainedTokenizerBase":
    """The source's tokenizer: pads on the right, with eos if it has no pad token.

    Its model_max_length is at most the model's number of positions.
    """
    from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

    if source.directory is None:
        return tiny.make_tokenizer(source.name)
    _check_sentencepiece(source.directory, source.key)
    with quiet():
        with reading(source, "the config cannot be read"):
            config = AutoConfig.from_pretrained(source.directory, local_files_only=True, trust_remote_code=False)
        with reading(source, "the tokenizer cannot be loaded"):
            kind: Any = PreTrainedTokenizerFast if _is_generic(source.directory, source.key) else AutoTokenizer
            tokenizer = kind.from_pretrained(source.directory, local_files_only=True, trust_remote_code=False)
            if tokenizer.pad_token is None:
                if tokenizer.eos_token is None:
                    raise UserError(
                        f"{source.key}: {source.directory}: its tokenizer has neither a pad nor an eos token"
                    )
                tokenizer.pad_token = tokenizer.eos_token
            tokenizer.padding_side = "right"
            longest = _longest(config)
            if longest is not None:
                tokenizer.model_max_length = min(tokenizer.model_max_length, longest)
    return cast("PreTrainedTokenizerBase", tokenizer)


def _check_sentencepiece(directory: Path, key: str) -> None:
    """Raises UserError where a SentencePiece file without tokenizer.json (DeBERTa-v3) needs a missing package.

    The error of transformers does not name the packages.
    """
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
    except (ImportError, ValueError):  # the parent package is missing or blocked
        return False


def _is_generic(directory: Path, key: str) -> bool:
    """Whether tokenizer.json alone defines the tokenizer; for some families (Qwen2) AutoTokenizer overrides it."""
    settings = directory / "tokenizer_config.json"
    if not settings.is_file() or not (directory / "tokenizer.json").is_file():
        return False
    return read_json(settings, key).get("tokenizer_class") in ("TokenizersBackend", "PreTrainedTokenizerFast")


def _longest(config: "PretrainedConfig") -> int | None:
    """Number of tokens that fit the position table; None for relative positions without a table (T5, BLOOM)."""
    unused = family_of(config.model_type).unused_positions
    if unused is None:
        return None
    for key in ("max_position_embeddings", "n_positions", "max_seq_len"):
        longest = config.to_dict().get(key)
        if isinstance(longest, int) and longest > 0:
            return longest - unused
    return None
