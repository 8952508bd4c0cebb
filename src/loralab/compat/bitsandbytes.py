"""bitsandbytes: blocks of numbers <-> codes of 4 or 8 bits, with a scale for each block.

Written for bitsandbytes 0.50.2, which is optional. Its functions alone are used. Its layers round activations too, or
compute in bf16 once training is over, so that a model would answer otherwise than it was trained.
"""

import copy
import functools
import logging
from typing import Any, cast

import torch
from torch import Tensor

__all__ = ["BITS", "BLOCK", "dequantised", "quantised"]

BLOCK = 64
"""Numbers that share a scale; QLoRA's (Dettmers et al. 2023), and the smallest that every device has."""

BITS = {"nf4": 4 + 8 / BLOCK + 32 / BLOCK / 256, "int8": 8 + 32 / BLOCK}
"""Of a number, with its share of the scales."""


def quantised(blocks: Tensor, kind: str) -> tuple[Tensor, Any]:
    """(n, BLOCK) -> the codes in uint8, and their state: the scales, and what each code stands for.

    nf4: the 16 quantiles of a normal distribution, with scales of 8 bits in blocks of 256 (double quantisation).
    int8: 255 equal steps from -1 to 1, with scales of fp32. A row must be one block: on a CPU, 0.50.2 takes the scales
    of a matrix whose rows are no multiple of a block from the wrong blocks.
    """
    assert blocks.shape[1:] == (BLOCK,)
    functions = _functions()
    if kind == "nf4":
        found = functions.quantize_4bit(blocks, blocksize=BLOCK, compress_statistics=True, quant_type="nf4")
    else:
        steps = functions.create_linear_map().to(blocks.device)
        found = functions.quantize_blockwise(blocks, code=steps, blocksize=BLOCK)
    return cast(tuple[Tensor, Any], found)


def dequantised(codes: Tensor, state: Any, dtype: torch.dtype) -> Tensor:
    """The inverse, up to rounding: (n, BLOCK) in `dtype`."""
    state = copy.copy(state)  # threads share the original
    state.dtype = dtype
    functions = _functions()
    four = state.quant_type == "nf4"
    return cast(Tensor, (functions.dequantize_4bit if four else functions.dequantize_blockwise)(codes, state))


@functools.cache
def _functions() -> Any:
    """Its module of functions, imported without the warnings about kernels that are not used."""
    logger = logging.getLogger("bitsandbytes")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        from bitsandbytes import functional
    finally:
        logger.setLevel(level)
    return functional
