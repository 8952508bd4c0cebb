"""A small BERT with fixed random weights and a byte-level tokenizer, made without any file or download.

For tests and smoke runs: its words mean nothing, its shapes and code paths are BERT's.
"""

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["ARCHITECTURE", "identity", "make_tokenizer"]

_SPECIALS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]")
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
    "initializer_range": 0.125,  # 1 / sqrt(width): at BERT's 0.02 so narrow a model hardly tells two texts apart
}
"""The config of the tiny backbone; its weights are the architecture's own initialisation with WEIGHT_SEED."""

WEIGHT_SEED = 20240219
"""The backbone is the same for every run seed, as a checkpoint would be; only the head follows the run's."""


def identity() -> str:
    """SHA-256 (first 16 hex digits) of the architecture and the seed of its weights."""
    text = json.dumps([ARCHITECTURE, WEIGHT_SEED, _SPECIALS], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def make_tokenizer() -> "PreTrainedTokenizerBase":
    """One token a UTF-8 byte, lower-cased: [CLS] a [SEP], and [CLS] a [SEP] b [SEP] with token types 0 and 1."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate((*_SPECIALS, *alphabet))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
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
