"""Eager attention with fewer operations than transformers', for the two formulas that most families have.

Its softmax is in fp32 at some lengths: attention=eager of a half-precision backbone on a CPU.

A vector of 512 bits holds 32 numbers in bf16 and 16 in fp32, and torch processes the remainder of a row one by one.
With MiniLM in bf16, 32 sentences of 27 tokens and one thread, attention and its gradient take 5.1 ms per layer, and
2.6 ms with the softmax in fp32. At other lengths it equals the families' own eager attention, bit for bit.

Llama-like families have an fp32 softmax at every length, and query heads that share a key head. Their own eager
attention copies keys and values for each query head; here the queries of a group are the rows of one product. With
SmolLM2-135M in bf16 and one thread, attention and its gradient take 28 ms instead of 49 over the 30 layers (8 texts of
46 tokens), and a token that is generated reads a third of the cache's bytes.

Both are applied when a backbone is loaded.
"""

import sys
from collections.abc import Container
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from loralab.backbones.families import family_of
from loralab.compat.transformers import register_attention

__all__ = ["attend", "eager", "use_eager", "use_fp32_softmax", "use_grouped"]

_NAME, _GROUPED = "eager_with_fp32_softmax", "eager_in_groups"
# Numbers of keys for which fp32 is faster (AVX512, 8 to 128 tokens measured: 2.2x at 31; equal at 38, 48 and 52; a loss
# of 7% at 32 and of 30% at 64). The choice depends on the shape only, so that runs are reproducible.
_LENGTHS = frozenset((*range(16, 32), *range(38, 64)))


def use_fp32_softmax(model: Any) -> bool:
    """Makes `model`, loaded with eager attention, use `attend`; returns False if its family has other attention."""
    config = model.config
    in_fp32_already = getattr(config, "reorder_and_upcast_attn", False)  # a setting of GPT-2 only
    if not family_of(config.model_type).plain_attention or in_fp32_already:
        return False
    register_attention(_NAME, attend)
    model.set_attn_implementation(_NAME)
    return True


def use_grouped(model: Any) -> bool:
    """Makes a Llama-like `model`, loaded with eager attention, use `grouped`; returns False for another family."""
    if not family_of(model.config.model_type).llama_like:
        return False
    register_attention(_GROUPED, grouped)
    model.set_attn_implementation(_GROUPED)
    return True


def use_eager(model: Any) -> None:
    """Restores the family's own eager attention."""
    model.set_attn_implementation("eager")


def attend(
    module: nn.Module,
    q_bhtd: Tensor,
    k_bhsd: Tensor,
    v_bhsd: Tensor,
    mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    *,
    wide: Container[int] = _LENGTHS,
    **_: Any,
) -> tuple[Tensor, None]:
    """softmax(scaling q k^T + mask) v, (b, t, h, d); the scores and their softmax are in fp32 for s in `wide`.

    k and v may have fewer heads than q; consecutive query heads share one.
    mask: (b, 1, t, s) of 0 or the dtype's lowest number, or None. The attention weights are not returned, as in SDPA.
    """
    q, k, v = q_bhtd.contiguous(), k_bhsd.contiguous(), v_bhsd.contiguous()
    rows, heads, length, size = q.shape
    together = (rows, k.shape[1], -1)  # the queries of the heads that share a key head, as the rows of one product
    scores = torch.matmul(q.view(*together, size), k.transpose(2, 3)).view(rows, heads, length, -1)
    if k.shape[2] in wide:
        scores = scores.float()
    scores.mul_(scaling)
    if mask is not None:
        scores.add_(mask)
    weights = nn.functional.softmax(scores, dim=-1).to(v.dtype)
    weights = nn.functional.dropout(weights, dropout, module.training)
    output = torch.matmul(weights.view(*together, k.shape[2]), v).view(rows, heads, length, -1)
    return output.transpose(1, 2).contiguous(), None


eager = partial(attend, wide=())
"""`attend` in the model's precision at every length: equal to the families' own eager attention."""

grouped = partial(attend, wide=range(sys.maxsize))
"""`attend` with the softmax in fp32 at every length: the eager attention of Llama-like families."""
