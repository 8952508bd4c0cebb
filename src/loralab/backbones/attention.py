"""Eager attention whose softmax is in fp32 at some lengths: attention=eager of a half-precision backbone on a CPU.

A vector of 512 bits holds 32 numbers in bf16 and 16 in fp32, and torch processes the remainder of a row one by one.
With MiniLM in bf16, 32 sentences of 27 tokens and one thread, attention and its gradient take 5.1 ms per layer, and
2.6 ms with the softmax in fp32. At other lengths it equals the families' own eager attention, bit for bit. Applied when
a backbone is loaded.
"""

from collections.abc import Container
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from loralab.backbones.families import family_of
from loralab.compat.transformers import register_attention

__all__ = ["attend", "eager", "use_eager", "use_fp32_softmax"]

_NAME = "eager_with_fp32_softmax"
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

    mask: (b, 1, t, s) of 0 or the dtype's lowest number, or None. The attention weights are not returned, as in SDPA.
    """
    q, k, v = q_bhtd.contiguous(), k_bhsd.contiguous(), v_bhsd.contiguous()
    scores = torch.matmul(q, k.transpose(2, 3))
    if k.shape[2] in wide:
        scores = scores.float()
    scores.mul_(scaling)
    if mask is not None:
        scores.add_(mask)
    weights = nn.functional.softmax(scores, dim=-1).to(v.dtype)
    weights = nn.functional.dropout(weights, dropout, module.training)
    return torch.matmul(weights, v).transpose(1, 2).contiguous(), None


eager = partial(attend, wide=())
"""`attend` in the model's precision at every length: equal to the families' own eager attention."""
