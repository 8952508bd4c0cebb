"""One tiny random sequence classifier per supported family: two layers, width 32, created in memory."""

from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast

__all__ = [
    "ALL",
    "FAMILIES",
    "FUSED",
    "MODEL_TYPES",
    "MORE_FAMILIES",
    "VARIANTS",
    "VOCABULARY",
    "example_batch",
    "in_gate",
    "save_checkpoint",
]

VOCABULARY = 100
_IN_GATE = ("bert", "gpt2", "falcon", "mpt", "bart", "mt5", "albert", "gemma2", "phi3")  # one of each kind of map
PAD = 1  # OPT and RoBERTa count positions from the padding id

_NAMED_AS_BERT: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
_NO_DROPOUT: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_ENCODER = _NAMED_AS_BERT | _NO_DROPOUT
_DECODER = _NAMED_AS_BERT | {"num_key_value_heads": 2, "attention_dropout": 0.0}

_FALCON: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "ffn_hidden_size": 48,
    "max_position_embeddings": 64,
}

_SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", _ENCODER),
    "roberta": ("roberta", _ENCODER),
    "distilbert": (
        "distilbert",
        {
            "dim": 32,
            "hidden_dim": 48,
            "n_layers": 2,
            "n_heads": 4,
            "max_position_embeddings": 64,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "seq_classif_dropout": 0.0,
        },
    ),
    "electra": ("electra", _ENCODER | {"embedding_size": 32}),
    "deberta_v2": (
        "deberta-v2",
        _ENCODER
        | {
            "relative_attention": True,
            "position_buckets": 8,
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "norm_rel_ebd": "layer_norm",
            "position_biased_input": False,
            "pooler_hidden_size": 32,
            "pooler_dropout": 0.0,
        },
    ),
    "mpnet": ("mpnet", _ENCODER),
    "gpt2": (
        "gpt2",
        {
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 64,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
        },
    ),
    "gpt_neox": (
        "gpt_neox",
        _NAMED_AS_BERT | {"attention_dropout": 0.0, "hidden_dropout": 0.0, "classifier_dropout": 0.0},
    ),
    "opt": (
        "opt",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "ffn_dim": 48,
            "max_position_embeddings": 64,
            "word_embed_proj_dim": 32,
            "dropout": 0.0,
            "attention_dropout": 0.0,
        },
    ),
    "llama": ("llama", _DECODER),
    "qwen2": ("qwen2", _DECODER),
    "t5": (
        "t5",
        {
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 48,
            "num_layers": 2,
            "num_decoder_layers": 2,
            "num_heads": 4,
            "dropout_rate": 0.0,
            "classifier_dropout": 0.0,
            "decoder_start_token_id": 0,
            "eos_token_id": 2,
        },
    ),
}

_MORE_SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "mt5": ("mt5", _SETTINGS["t5"][1] | {"feed_forward_proj": "gated-gelu"}),
    "xlm_roberta": ("xlm-roberta", _ENCODER),
    "mistral": ("mistral", _DECODER),
    "qwen3": ("qwen3", _DECODER | {"head_dim": 8}),
    "phi": ("phi", _DECODER | {"resid_pdrop": 0.0, "embd_pdrop": 0.0}),
    "phi3": ("phi3", _DECODER | {"resid_pdrop": 0.0, "embd_pdrop": 0.0}),
    "gemma": ("gemma", _DECODER | {"head_dim": 8}),
    "gemma2": ("gemma2", _DECODER | {"head_dim": 8, "sliding_window": 12}),
    "falcon": ("falcon", _FALCON),
    "mpt": (
        "mpt",
        {"d_model": 32, "n_heads": 4, "n_layers": 2, "expansion_ratio": 2, "max_seq_len": 64},
    ),
    "bart": (
        "bart",
        {
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "max_position_embeddings": 64,
            "scale_embedding": True,
            "dropout": 0.0,
            "decoder_start_token_id": 2,
        },
    ),
    "albert": ("albert", _ENCODER | {"embedding_size": 16, "classifier_dropout_prob": 0.0}),
    "bloom": (
        "bloom",
        {"hidden_size": 32, "n_layer": 2, "n_head": 4, "hidden_dropout": 0.0, "attention_dropout": 0.0},
    ),
    "gptj": (
        "gptj",
        {
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "rotary_dim": 4,
            "n_positions": 64,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
        },
    ),
    "modernbert": (
        "modernbert",
        _NAMED_AS_BERT
        | {"cls_token_id": 2, "sep_token_id": 2, "classifier_dropout": 0.0, "global_attn_every_n_layers": 2},
    ),
}

_VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "falcon_grouped": ("falcon", _FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon_per_head": ("falcon", _FALCON | {"multi_query": False, "alibi": True}),
}


def _build(model_type: str, settings: dict[str, Any], *, labels: int = 3) -> PreTrainedModel:
    config = AutoConfig.for_model(
        model_type,
        **{
            "vocab_size": VOCABULARY,
            "num_labels": labels,
            "pad_token_id": PAD,
            "bos_token_id": 0,
            "eos_token_id": 2,
            **settings,
        },
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager", dtype=torch.float32)
        # Some families initialise biases to zero and weights to tiny values, which would hide a wrong layout.
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    name: partial(_build, *setting) for name, setting in _SETTINGS.items()
}
"""The families of the issue: every part of the project is tested on them."""

MORE_FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    name: partial(_build, *setting) for name, setting in _MORE_SETTINGS.items()
}
"""The other families of the table: their rows are tested, and what a row decides."""

VARIANTS: dict[str, Callable[[], PreTrainedModel]] = {
    name: partial(_build, *setting) for name, setting in _VARIANTS.items()
}
"""Other layouts of a fused map within a family."""

ALL = FAMILIES | MORE_FAMILIES
FUSED = ("gpt2", "gpt_neox", "phi3", "bloom", "modernbert", "mpt", "falcon", "falcon_grouped", "falcon_per_head")
"""Those whose q, k and v are one map."""
MODEL_TYPES = {name: model_type for name, (model_type, _) in (_SETTINGS | _MORE_SETTINGS).items()}


def in_gate(names: Iterable[str], *, gate: Collection[str] = _IN_GATE) -> list[Any]:
    """Values to parametrise with: those in `gate` are tested by every `make test`, the others by `make test-all`."""
    return [pytest.param(name, marks=[] if name in gate else [pytest.mark.slow]) for name in names]


def example_batch(model: PreTrainedModel) -> dict[str, Tensor]:
    """Two sentences of 10 and 7 tokens, padded on the right, with labels; for T5 they end in eos, as it requires."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        input_ids = torch.randint(3, VOCABULARY, (2, 10))
    attention_mask = torch.ones_like(input_ids)
    input_ids[1, 7:] = PAD
    attention_mask[1, 7:] = 0
    if model.config.is_encoder_decoder:
        input_ids[0, 9] = input_ids[1, 6] = model.config.eos_token_id
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": torch.tensor([0, 1])}


def save_checkpoint(model: PreTrainedModel, directory: Path) -> Path:
    """Writes `model` (a classifier, or its base model for a checkpoint without a head) and a word tokenizer."""
    words = ["<s>", "<pad>", "</s>", *(f"w{i}" for i in range(3, VOCABULARY))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        model_input_names=["input_ids", "attention_mask"],
    )
    fast.save_pretrained(directory)
    model.save_pretrained(directory)
    return directory
