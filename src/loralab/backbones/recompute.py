"""Gradient checkpointing: a layer keeps its input alone, and computes its activations again for the backward pass.

Chen et al. 2016. It takes a forward pass more, about a third of a step, and the memory of one layer in place of all.
"""

from typing import Any

from loralab.compat.transformers import checkpoint_layers
from loralab.errors import UserError

__all__ = ["recompute_layers"]


def recompute_layers(model: Any, *, name: str) -> None:
    """Makes every layer of a transformers model recompute its activations while it trains; losses keep their bits.

    Raises UserError for a family that cannot (name: what the user calls it).
    """
    try:
        checkpoint_layers(model)
    except ValueError as error:
        raise UserError(
            f"model.gradient_checkpointing: transformers has none for {name} ({type(model).__name__}); set it to "
            "false, and train.micro_batch_size=1 for less memory"
        ) from error
