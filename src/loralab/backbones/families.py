"""Table of the backbone families, keyed by the config's `model_type`.

A row gives the role of each linear map of a block, and the facts that loading, attention and virtual tokens need. No
other module is keyed by the model type. A family without a row has no roles; `kind_of` asks transformers what it is.
To add a family, add a row here and a tiny model to tests/families.py; tests check the row. This module does not depend
on LoRA and does not import torch.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "FAMILIES",
    "IN_GGUF",
    "ROLES",
    "WIDTHS",
    "Family",
    "LinearMap",
    "family_of",
    "kind_of",
    "linear_maps",
]

ROLES = ("q", "k", "v", "o", "mlp")

Kind = Literal["encoder", "decoder", "encoder_decoder"]
Rows = range | tuple[int, ...]
Layout = Callable[[Any], dict[str, Rows]]  # config -> the output rows of each role


@dataclass(frozen=True)
class LinearMap:
    """One role of one linear map: the whole map, or some output rows of a fused one.

    `rows` are output features, whatever the storage layout (Conv1D stores its weight transposed). They are in
    the order of the heads: row i of q is output feature i of an unfused q projection.
    """

    name: str
    role: str
    rows: Rows | None


def _thirds(config: Any) -> dict[str, Rows]:
    """Rows (3, heads, head_dim): GPT-2, ModernBERT, MPT."""
    width = config.hidden_size
    return {"q": range(width), "k": range(width, 2 * width), "v": range(2 * width, 3 * width)}


def _per_head(config: Any) -> dict[str, Rows]:
    """Rows (heads, 3, head_dim), each head's q, k and v side by side: GPT-NeoX, BLOOM."""
    heads = config.num_attention_heads
    return _interleaved(heads, heads, config.hidden_size // heads, groups=heads)


def _grouped(config: Any) -> dict[str, Rows]:
    """Rows (heads + 2 key-value heads, head_dim): Phi-3."""
    size = config.hidden_size // config.num_attention_heads
    return _interleaved(config.num_attention_heads, config.num_key_value_heads, size, groups=1)


def _falcon(config: Any) -> dict[str, Rows]:
    """Rows (groups, heads of the group + 2, head_dim), each group's heads of q before its one k and v.

    All heads are one group (multi_query), or each head is a group (Falcon-RW); new_decoder_architecture says how many.
    """
    heads = config.num_attention_heads
    groups = 1 if config.multi_query else heads
    if config.new_decoder_architecture:
        groups = config.num_kv_heads
    return _interleaved(heads, groups, config.hidden_size // heads, groups=groups)


def _interleaved(heads: int, key_heads: int, size: int, *, groups: int) -> dict[str, Rows]:
    """The rows of q, k and v that lie side by side in each group; contiguous rows are a range."""
    counts = {"q": heads // groups * size, "k": key_heads // groups * size, "v": key_heads // groups * size}
    rows: dict[str, Rows] = {}
    first = 0
    for role, count in counts.items():
        step = sum(counts.values())
        each = tuple(group * step + first + i for group in range(groups) for i in range(count))
        rows[role] = range(first, first + count) if groups == 1 else each
        first += count
    return rows


@dataclass(frozen=True)
class Family:
    """Facts about one `model_type`. The defaults hold for most families and for families without a row."""

    block: str
    """Regular expression of a block's path, anywhere in the model."""
    maps: Mapping[str, str | Layout]
    """Path of a linear map inside the block -> its role, or the layout of a fused projection."""
    kind: Kind = "encoder"
    """encoder: reads a text; decoder: continues a text; encoder_decoder: reads a text and generates another."""
    width: str = "hidden_size"
    """The key of config.json that holds the model's width."""
    unused_positions: int | None = 0
    """Rows of the position table that no token uses; None: there is no table, and a text may have any length."""
    sdpa: bool = True
    """Whether its classes have scaled-dot-product attention in every supported release of transformers. If not,
    attention=auto is eager everywhere, so that a run's identity does not depend on the release."""
    plain_attention: bool = False
    """Whether its eager attention equals `attention.attend`, with the softmax in the model's precision. OPT, GPT-NeoX
    and Llama-like families compute the softmax in fp32; T5, DeBERTa, MPNet, BLOOM, GPT-J and ModernBERT have other
    attention formulas."""
    llama_like: bool = False
    """Whether its eager attention equals `attention.grouped`, and its norms are `rms_norm.py`'s."""
    first_token: bool = False
    """Whether its classifier reads only position 0 and its layers have the structure of BERT's (first_token.py)."""
    takes_cache: bool = False
    """Whether its attention reads keys and values from a cache, as prefix tuning needs."""
    widens: bool = False
    """Whether copying its units makes it wider without a change of its outputs (widen.py)."""


def _attention(path: str, q: str, k: str, v: str, o: str) -> dict[str, str | Layout]:
    return {f"{path}.{q}": "q", f"{path}.{k}": "k", f"{path}.{v}": "v", f"{path}.{o}": "o"}


def _fused(path: str, layout: Layout, o: str) -> dict[str, str | Layout]:
    return {path: layout, o: "o"}


def _mlp(*paths: str) -> dict[str, str | Layout]:
    return dict.fromkeys(paths, "mlp")


_ENCODER_MLP = _mlp("intermediate.dense", "output.dense")
_BERT = Family(
    r"encoder\.layer\.\d+",
    {
        **_attention("attention", "self.query", "self.key", "self.value", "output.dense"),
        **_ENCODER_MLP,
    },
    plain_attention=True,
    first_token=True,
    takes_cache=True,
    widens=True,
)
_ROBERTA = replace(_BERT, unused_positions=2)  # positions are counted from padding_idx + 1
_LLAMA = Family(
    r"layers\.\d+",
    {
        **_attention("self_attn", "q_proj", "k_proj", "v_proj", "o_proj"),
        **_mlp("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    },
    kind="decoder",
    llama_like=True,
    takes_cache=True,
    widens=True,
)

_T5 = Family(
    r"block\.\d+",
    {
        **_attention("layer.0.SelfAttention", "q", "k", "v", "o"),
        **_attention("layer.1.EncDecAttention", "q", "k", "v", "o"),
        **_mlp(*(f"layer.{at}.DenseReluDense.{name}" for at in (1, 2) for name in ("wi", "wi_0", "wi_1", "wo"))),
    },
    kind="encoder_decoder",
    width="d_model",
    unused_positions=None,
)

FAMILIES: Mapping[str, Family] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "electra": replace(_BERT, widens=False),
    "deberta-v2": Family(
        r"encoder\.layer\.\d+",
        {
            **_attention("attention", "self.query_proj", "self.key_proj", "self.value_proj", "output.dense"),
            **_ENCODER_MLP,
        },
        sdpa=False,
    ),
    "mpnet": Family(
        r"encoder\.layer\.\d+",
        {**_attention("attention.attn", "q", "k", "v", "o"), **_ENCODER_MLP},
        unused_positions=2,
        sdpa=False,
    ),
    "distilbert": Family(
        r"transformer\.layer\.\d+",
        {**_attention("attention", "q_lin", "k_lin", "v_lin", "out_lin"), **_mlp("ffn.lin1", "ffn.lin2")},
        width="dim",
        plain_attention=True,
    ),
    "modernbert": Family(
        r"layers\.\d+",
        {**_fused("attn.Wqkv", _thirds, "attn.Wo"), **_mlp("mlp.Wi", "mlp.Wo")},
    ),
    "albert": Family(
        r"albert_layers\.\d+",
        {**_attention("attention", "query", "key", "value", "dense"), **_mlp("ffn", "ffn_output")},
    ),
    "gpt2": Family(
        r"h\.\d+",
        {**_fused("attn.c_attn", _thirds, "attn.c_proj"), **_mlp("mlp.c_fc", "mlp.c_proj")},
        kind="decoder",
        width="n_embd",
        plain_attention=True,
        takes_cache=True,
        widens=True,
    ),
    "gptj": Family(
        r"h\.\d+",
        {**_attention("attn", "q_proj", "k_proj", "v_proj", "out_proj"), **_mlp("mlp.fc_in", "mlp.fc_out")},
        kind="decoder",
        width="n_embd",
        sdpa=False,  # before 5.24
        takes_cache=True,
    ),
    "gpt_neox": Family(
        r"layers\.\d+",
        {
            **_fused("attention.query_key_value", _per_head, "attention.dense"),
            **_mlp("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
        },
        kind="decoder",
        takes_cache=True,
    ),
    "bloom": Family(
        r"h\.\d+",
        {
            **_fused("self_attention.query_key_value", _per_head, "self_attention.dense"),
            **_mlp("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
        },
        kind="decoder",
        width="n_embed",  # in the hub's checkpoints; transformers saves hidden_size
        unused_positions=None,
        sdpa=False,
        takes_cache=True,
    ),
    "opt": Family(
        r"layers\.\d+",
        {**_attention("self_attn", "q_proj", "k_proj", "v_proj", "out_proj"), **_mlp("fc1", "fc2")},
        kind="decoder",
        takes_cache=True,
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    # Gemma's embeddings are scaled by the width's root, and its norms multiply by 1 + w
    "gemma": replace(_LLAMA, llama_like=False, widens=False),
    "gemma2": replace(_LLAMA, sdpa=False, llama_like=False, widens=False),
    "phi": replace(
        _LLAMA,
        maps={**_attention("self_attn", "q_proj", "k_proj", "v_proj", "dense"), **_mlp("mlp.fc1", "mlp.fc2")},
        llama_like=False,
        widens=False,
    ),
    "phi3": replace(
        _LLAMA,
        widens=False,
        maps={
            **_fused("self_attn.qkv_proj", _grouped, "self_attn.o_proj"),
            **_mlp("mlp.gate_up_proj", "mlp.down_proj"),
        },
    ),
    "falcon": Family(
        r"h\.\d+",
        {
            **_fused("self_attention.query_key_value", _falcon, "self_attention.dense"),
            **_mlp("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
        },
        kind="decoder",  # its cache has 1 head, or as many as q has, which the config names otherwise than others do
    ),
    "mpt": Family(
        r"blocks\.\d+",
        {**_fused("attn.Wqkv", _thirds, "attn.out_proj"), **_mlp("ffn.up_proj", "ffn.down_proj")},
        kind="decoder",
        width="d_model",
        sdpa=False,
        takes_cache=True,
    ),
    "bart": Family(
        r"layers\.\d+",
        {
            **_attention("self_attn", "q_proj", "k_proj", "v_proj", "out_proj"),
            **_attention("encoder_attn", "q_proj", "k_proj", "v_proj", "out_proj"),
            **_mlp("fc1", "fc2"),
        },
        kind="encoder_decoder",
        width="d_model",
    ),
    "t5": _T5,
    "mt5": _T5,
}

IN_GGUF = frozenset({"llama", "qwen2", "qwen3"})
"""The families whose GGUF files are read; llama.cpp calls them by their model type."""

WIDTHS = (*dict.fromkeys(family.width for family in FAMILIES.values()), "emb_dim")
"""The config.json keys that hold the width, over all families; emb_dim is XLM's."""

_WITHOUT_A_ROW = Family(block="", maps={})


def family_of(model_type: str) -> Family:
    """The row of a model type; without a row, the defaults and no linear maps. Its kind is `kind_of`'s to say."""
    return FAMILIES.get(model_type, _WITHOUT_A_ROW)


def kind_of(model_type: str) -> Kind:
    """The kind of a model type; that of a family without a row is derived from transformers, which it imports."""
    if model_type in FAMILIES:
        return FAMILIES[model_type].kind
    from loralab.compat.transformers import generates

    if generates(model_type, seq2seq=True):
        return "encoder_decoder"
    return "decoder" if generates(model_type, seq2seq=False) else "encoder"


def linear_maps(model: "nn.Module") -> tuple[LinearMap, ...]:
    """The attention and MLP maps of the model's blocks, in module order; not the head, embeddings or pooler.

    A fused projection has one entry for each of q, k and v, with their rows. An encoder-decoder has the maps of its
    encoder, its decoder and its cross-attention. Empty for a family without a row in the table.
    """
    config: Any = model.config
    row = family_of(config.model_type)
    block = re.compile(rf"(?:^|\.){row.block}\.(?P<inside>.+)$")
    maps: list[LinearMap] = []
    for name, _ in model.named_modules():
        match = block.search(name)
        role = row.maps.get(match["inside"]) if match else None
        if role is None:
            continue
        if isinstance(role, str):
            maps.append(LinearMap(name, role, None))
        else:
            maps.extend(LinearMap(name, part, rows) for part, rows in role(config).items())
    return tuple(maps)
