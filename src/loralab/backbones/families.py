"""Which linear map of a transformer plays which role: a table keyed by the config's `model_type`.

Between loading a backbone and adapting it; knows no LoRA. A family is its block's path and, inside a
block, the path of each map with its role, or with the layout of a fused query-key-value projection.
To add a family, add a row here and a tiny model to tests/families.py, whose tests check the row.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loralab.errors import UserError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["DECODERS", "ENCODER_DECODERS", "KNOWN_FAMILIES", "NO_SDPA", "ROLES", "LinearMap", "linear_maps"]

ROLES = ("q", "k", "v", "o", "mlp")
# Families whose classes in transformers have no scaled-dot-product attention, or had none before 5.24 (GPT-J): with
# attention=auto they are eager everywhere, so that a run's identity does not depend on the release.
NO_SDPA = frozenset({"deberta-v2", "mpnet", "bloom", "gptj"})

Rows = range | tuple[int, ...]
Layout = Callable[[Any], dict[str, Rows]]  # config -> the output rows of each role


@dataclass(frozen=True)
class LinearMap:
    """One role of one linear map: the whole map, or some output rows of a fused one.

    `rows` are output features whatever the storage (Conv1D keeps its weight transposed). They keep the
    order of the heads, so row i of q is feature i of what an unfused q projection would give.
    """

    name: str
    role: str
    rows: Rows | None


def _thirds(config: Any) -> dict[str, Rows]:
    """Rows (3, heads, head_dim): GPT-2, ModernBERT."""
    width = config.hidden_size
    return {"q": range(width), "k": range(width, 2 * width), "v": range(2 * width, 3 * width)}


def _per_head(config: Any) -> dict[str, Rows]:
    """Rows (heads, 3, head_dim), each head's q, k and v side by side: GPT-NeoX, BLOOM."""
    heads = config.num_attention_heads
    size = config.hidden_size // heads
    return {
        role: tuple(3 * size * head + size * place + i for head in range(heads) for i in range(size))
        for place, role in enumerate("qkv")
    }


def _grouped(config: Any) -> dict[str, Rows]:
    """Rows (heads + 2 key-value heads, head_dim): Phi-3."""
    size = config.hidden_size // config.num_attention_heads
    q, kv = size * config.num_attention_heads, size * config.num_key_value_heads
    return {"q": range(q), "k": range(q, q + kv), "v": range(q + kv, q + 2 * kv)}


@dataclass(frozen=True)
class _Family:
    block: str  # regular expression of a block's path, anywhere in the model
    maps: dict[str, str | Layout]  # path inside the block -> role or layout


def _encoder(attention: str = "attention.self", q: str = "query", k: str = "key", v: str = "value") -> _Family:
    return _Family(
        r"encoder\.layer\.\d+",
        {
            f"{attention}.{q}": "q",
            f"{attention}.{k}": "k",
            f"{attention}.{v}": "v",
            "attention.output.dense": "o",
            "intermediate.dense": "mlp",
            "output.dense": "mlp",
        },
    )


def _attention(path: str, q: str, k: str, v: str, o: str) -> dict[str, str | Layout]:
    return {f"{path}.{q}": "q", f"{path}.{k}": "k", f"{path}.{v}": "v", f"{path}.{o}": "o"}


def _fused(path: str, layout: Layout, o: str, *mlp: str) -> dict[str, str | Layout]:
    return {path: layout, o: "o", **dict.fromkeys(mlp, "mlp")}


_BERT = _encoder()
_SEPARATE = _attention("self_attn", "q_proj", "k_proj", "v_proj", "o_proj")
_LLAMA = _Family(r"layers\.\d+", {**_SEPARATE, "mlp.gate_proj": "mlp", "mlp.up_proj": "mlp", "mlp.down_proj": "mlp"})
_T5_MLP: dict[str, str | Layout] = {
    f"layer.{place}.DenseReluDense.{name}": "mlp" for place in (1, 2) for name in ("wi", "wi_0", "wi_1", "wo")
}

_FAMILIES: dict[str, _Family] = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "electra": _BERT,
    "deberta-v2": _encoder("attention.self", "query_proj", "key_proj", "value_proj"),
    "mpnet": _Family(
        r"encoder\.layer\.\d+",
        {
            **_attention("attention.attn", "q", "k", "v", "o"),
            "intermediate.dense": "mlp",
            "output.dense": "mlp",
        },
    ),
    "distilbert": _Family(
        r"transformer\.layer\.\d+",
        {
            **_attention("attention", "q_lin", "k_lin", "v_lin", "out_lin"),
            "ffn.lin1": "mlp",
            "ffn.lin2": "mlp",
        },
    ),
    "modernbert": _Family(r"layers\.\d+", _fused("attn.Wqkv", _thirds, "attn.Wo", "mlp.Wi", "mlp.Wo")),
    "gpt2": _Family(r"h\.\d+", _fused("attn.c_attn", _thirds, "attn.c_proj", "mlp.c_fc", "mlp.c_proj")),
    "gptj": _Family(
        r"h\.\d+",
        {**_attention("attn", "q_proj", "k_proj", "v_proj", "out_proj"), "mlp.fc_in": "mlp", "mlp.fc_out": "mlp"},
    ),
    "gpt_neox": _Family(
        r"layers\.\d+",
        _fused("attention.query_key_value", _per_head, "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    ),
    "bloom": _Family(
        r"h\.\d+",
        _fused(
            "self_attention.query_key_value",
            _per_head,
            "self_attention.dense",
            "mlp.dense_h_to_4h",
            "mlp.dense_4h_to_h",
        ),
    ),
    "opt": _Family(
        r"layers\.\d+",
        {**_attention("self_attn", "q_proj", "k_proj", "v_proj", "out_proj"), "fc1": "mlp", "fc2": "mlp"},
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": _LLAMA,
    "phi3": _Family(
        r"layers\.\d+",
        _fused("self_attn.qkv_proj", _grouped, "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"),
    ),
    "t5": _Family(
        r"block\.\d+",
        {
            **_attention("layer.0.SelfAttention", "q", "k", "v", "o"),
            **_attention("layer.1.EncDecAttention", "q", "k", "v", "o"),
            **_T5_MLP,
        },
    ),
}

KNOWN_FAMILIES = tuple(sorted(_FAMILIES))
# Families that continue a text, and those that read one and write another.
DECODERS = frozenset(
    {"bloom", "gemma", "gpt2", "gpt_neox", "gptj", "llama", "mistral", "opt", "phi3", "qwen2", "qwen3"}
)
ENCODER_DECODERS = frozenset({"t5"})


def linear_maps(model: "nn.Module") -> tuple[LinearMap, ...]:
    """The attention and MLP maps of the model's blocks, in the model's order; never head, embeddings or pooler.

    A fused projection gives one entry for each of q, k and v, with their rows. T5 gives its encoder's,
    its decoder's and the cross attention's maps. Raises UserError for a family without a row in the table.
    """
    config: Any = model.config
    family = config.model_type
    if family not in _FAMILIES:
        raise UserError(
            f"lora.targets: the roles of a {family!r} model are not known (known families: "
            f"{', '.join(KNOWN_FAMILIES)}); globs over module names work, e.g. lora.targets=['*proj*']"
        )
    row = _FAMILIES[family]
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
    assert {m.role for m in maps} == set(ROLES), f"the row of {family} does not fit the model"
    return tuple(maps)
