"""The matmul floor of one training step: the measured time of its necessary matrix products on this machine.

Necessary for LoRA on q and v: the forward products of every frozen map and of attention, and the backward products for
the gradients of activations. Not counted: gradients of frozen weights, gradients below the first adapter, and padding.
Each product is timed in its shape in an average batch. Prints one JSON object {bf16: ms, fp32: ms}.
"""

import argparse
import json
import time
from collections.abc import Callable

import torch
from torch import Tensor

LAYERS, WIDTH, HEADS, INNER = 6, 384, 12, 1536  # of MiniLM
REPEATS = 40


def fastest_ms(work: Callable[[], Tensor]) -> float:
    """The minimum of many times, in ms, which excludes noise."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def floor_ms(dtype: torch.dtype, *, tokens: int, batch: int) -> float:
    """Milliseconds for `tokens` real tokens in `batch` examples."""

    def linear(d_in: int, d_out: int) -> float:
        x, weight = torch.randn(tokens, d_in, dtype=dtype), torch.randn(d_out, d_in, dtype=dtype)
        return fastest_ms(lambda: torch.nn.functional.linear(x, weight))

    square, up, down = linear(WIDTH, WIDTH), linear(WIDTH, INNER), linear(INNER, WIDTH)
    forward = LAYERS * (4 * square + up + down)
    # The first layer's q, k and v need no gradient of their inputs: the embeddings are frozen.
    backward = LAYERS * (4 * square + up + down) - 3 * square
    length, d_head = tokens // batch, WIDTH // HEADS
    q, k = (torch.randn(batch * HEADS, length, d_head, dtype=dtype) for _ in range(2))
    scores = torch.randn(batch * HEADS, length, length, dtype=dtype)
    inner = fastest_ms(lambda: torch.bmm(q, k.transpose(1, 2)))  # q k^T; back: dP = dO v^T
    outer = fastest_ms(lambda: torch.bmm(scores, k))  # P v; back: dQ, dK, dV
    return forward + backward + LAYERS * (2 * inner + 4 * outer)


def main() -> None:
    """Prints the floor in both precisions."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("tokens", "batch", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    size = {"tokens": arguments.tokens, "batch": arguments.batch}
    floors = {name: floor_ms(dtype, **size) for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32))}
    print(json.dumps(floors))


if __name__ == "__main__":
    main()
