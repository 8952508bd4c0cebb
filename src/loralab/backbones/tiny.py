"""Small backbones with fixed random weights, and their tokenizers, built without any file or download.

The tiny ones are for tests and smoke runs: they are not pretrained, and have the shapes and code paths of BERT, Llama
and T5. `sql_decoder` is meant to be fully trained (method=full), on task=sql.
"""

import hashlib
import json
from typing import TYPE_CHECKING, Any

from loralab.backbones.byte_pair import MERGES, byte_level, word_pieces

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["ARCHITECTURE", "NAMES", "architecture", "identity", "make_tokenizer"]

_SPECIALS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]")
_GENERATOR_SPECIALS = ("<pad>", "<eos>", "<unk>")
_LONGEST = 256

ARCHITECTURE: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": len(_SPECIALS) + 256,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": _LONGEST,
    "type_vocab_size": 2,
    "pad_token_id": 0,
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.125,  # 1 / sqrt(width); with BERT's 0.02 so narrow a model hardly separates texts
}
"""The config of `tiny`; its weights are the architecture's own initialisation with WEIGHT_SEED."""

_GENERATOR: dict[str, Any] = {
    "vocab_size": len(_GENERATOR_SPECIALS) + 256,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": None,
    "tie_word_embeddings": True,
}
_GENERATORS: dict[str, dict[str, Any]] = {
    "tiny_decoder": {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "intermediate_size": 128,
        "max_position_embeddings": _LONGEST,
        "initializer_range": 0.125,
        **_GENERATOR,
    },
    "tiny_seq2seq": {
        "model_type": "t5",
        "d_model": 64,
        "d_kv": 16,
        "d_ff": 128,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "num_heads": 4,
        "decoder_start_token_id": 0,
        **_GENERATOR,
    },
    "sql_decoder": {
        **_GENERATOR,
        "model_type": "llama",
        "vocab_size": len(_GENERATOR_SPECIALS) + 256 + len(MERGES),
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "intermediate_size": 384,
        "max_position_embeddings": _LONGEST,
        "initializer_range": 0.05,
    },
}
_ARCHITECTURES = {"tiny": ARCHITECTURE, **_GENERATORS}

NAMES = tuple(_ARCHITECTURES)

WEIGHT_SEED = 20240219
"""Seed of the backbone's weights, the same for every run (as for a checkpoint); only the head has the run's seed."""


def architecture(name: str) -> dict[str, Any]:
    """The config of the backbone `name`, one of NAMES."""
    return _ARCHITECTURES[name]


def identity(name: str = "tiny") -> str:
    """SHA-256 (first 16 hex digits) of the architecture, the seed of its weights and the tokenizer's vocabulary."""
    specials = _SPECIALS if name == "tiny" else _GENERATOR_SPECIALS
    merges = [MERGES] if name == "sql_decoder" else []
    text = json.dumps([architecture(name), WEIGHT_SEED, specials, *merges], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def make_tokenizer(name: str = "tiny") -> "PreTrainedTokenizerBase":
    """A tokenizer with one token per UTF-8 byte; that of `sql_decoder` has word pieces too.

    `tiny`: lower-cased, [CLS] a [SEP], and [CLS] a [SEP] b [SEP] with token types 0 and 1. The generators' tokenizers
    keep the case; a decoder's adds no special token (as GPT-2's), the encoder-decoder's adds eos.
    """
    return _of_pairs() if name == "tiny" else _of_generator(name)


def _of_generator(name: str) -> "PreTrainedTokenizerBase":
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    if name == "sql_decoder":
        tokenizer = word_pieces(_GENERATOR_SPECIALS, MERGES, unknown="<unk>")
    else:
        tokenizer = byte_level(_GENERATOR_SPECIALS, unknown="<unk>")
    if name == "tiny_seq2seq":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A <eos>",
            pair="$A <eos> $B <eos>",
            special_tokens=[("<eos>", _GENERATOR_SPECIALS.index("<eos>"))],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        model_max_length=_LONGEST,
        model_input_names=["input_ids", "attention_mask"],
    )


def _of_pairs() -> "PreTrainedTokenizerBase":
    from tokenizers import normalizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = byte_level(_SPECIALS, unknown="[UNK]")
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, _SPECIALS.index(token)) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        model_max_length=_LONGEST,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
