"""A bound on the size of a model that a config describes, by the size of its weight files.

A damaged config can ask for a table of 10^9 rows or for millions of layers. transformers builds the model without
memory, then allocates what the files lack. The bound stops it while it builds.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.modules import module as hooks

from loralab.errors import UserError

__all__ = ["within"]

SPARE_NUMBERS = 50_000_000  # for a new head, and for tables that no file holds (masks, sinusoids)
MOST_TENSORS, SPARE_TENSORS = 200_000, 1_000
HEADER_BYTES = 50  # of a tensor in a file, at least


@contextlib.contextmanager
def within(file_bytes: int, *, where: str) -> Iterator[None]:
    """Inside, raises UserError (prefixed with `where`) as soon as a model is built that such files cannot hold.

    A number takes at least one byte, and tied matrices are counted twice.
    """
    numbers = 2 * file_bytes + SPARE_NUMBERS
    tensors = min(MOST_TENSORS, SPARE_TENSORS + file_bytes // HEADER_BYTES)
    seen = [0, 0]

    def count(module: nn.Module, name: str, tensor: Any) -> None:
        if tensor is None:
            return
        seen[0] += 1
        seen[1] += tensor.numel()
        if seen[0] > tensors or seen[1] > numbers:
            shape = " x ".join(f"{size:,}" for size in tensor.shape)
            raise UserError(
                f"{where}: config.json describes a model that its {file_bytes:,} bytes of weights cannot hold "
                f"({type(module).__name__}.{name} would be {shape}); give the config.json that was saved with them"
            )

    handles = [
        hooks.register_module_parameter_registration_hook(count),
        hooks.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
