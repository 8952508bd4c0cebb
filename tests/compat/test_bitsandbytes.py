"""Blocks of numbers become codes and come back, up to rounding."""

import pytest
import torch

from loralab.compat.bitsandbytes import BLOCK, dequantised, quantised

pytest.importorskip("bitsandbytes", reason="needs the extra `quantize`")


@pytest.mark.parametrize(("kind", "worst"), [("nf4", 0.17), ("int8", 0.0045)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_number_moves_by_half_a_step_at_most(kind: str, worst: float, dtype: torch.dtype) -> None:
    """As a share of the largest of its block; nf4's widest step is .30, between -1 and -.70. bf16 rounds twice."""
    torch.manual_seed(0)
    blocks = torch.randn(300, BLOCK)
    found = dequantised(*quantised(blocks, kind), dtype)
    assert found.dtype == dtype
    assert ((found.float() - blocks).abs() / blocks.abs().amax(1, keepdim=True)).max() < worst + torch.finfo(dtype).eps


def test_the_state_is_shared_and_not_changed() -> None:
    codes, state = quantised(torch.randn(2, BLOCK), "nf4")
    dequantised(codes, state, torch.bfloat16)
    assert state.dtype == torch.float32
