"""Eager attention, and eager attention with its softmax in fp32 at some lengths: `eager` of a bf16 backbone on a CPU.

A vector of 512 bits holds 32 numbers in bf16 and 16 in fp32, and torch takes what is left of a row one by one: with
MiniLM, 32 sentences of 27 tokens and one thread, attention and its gradient take 5.1 ms a layer, and so 2.6 ms. At
the other lengths it is the families' own eager attention, bit for bit. Between loading a backbone and training.
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
# Keys for which fp32 gains (AVX512, 8 to 128 tokens tried: 2.2x at 31; a tie at 38, 48 and 52; a loss of 7% at 32 and
# of 30% at 64). Nothing but the shape decides, so that runs repeat.
_LENGTHS = frozenset((*range(16, 32), *range(38, 64)))


def use_fp32_softmax(model: Any) -> bool:
    """Has `model`, loaded with eager attention, use `attend` where its family's is that; whether it does."""
    config = model.config
    in_fp32_already = getattr(config, "reorder_and_upcast_attn", False)  # a setting that GPT-2 alone has
    if not family_of(config.model_type).plain_attention or in_fp32_already:
        return False
    register_attention(_NAME, attend)
    model.set_attn_implementation(_NAME)
    return True


def use_eager(model: Any) -> None:
    """Gives `model` its family's own eager attention again."""
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
    """softmax(scaling q k^T + mask) v, (b, t, h, d), with what is between the two products in fp32 for s in `wide`.

    mask: (b, 1, t, s), 0 or the least number, or None. The weights themselves are not given back (SDPA's neither).
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
"""The same in the model's precision at every length: the families' own eager attention."""
