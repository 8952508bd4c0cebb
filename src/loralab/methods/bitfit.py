"""BitFit (Ben Zaken et al. 2022): trains every bias of the backbone, including those of its norms, and nothing else."""

from collections.abc import Sequence

from torch import nn

from loralab.errors import UserError
from loralab.methods.lora import train_bias

__all__ = ["attach"]


def attach(model: nn.Module, *, head: Sequence[str]) -> None:
    """Adds a trained fp32 update, zero at first, to every bias of a frozen `model` outside `head`, in place.

    Raises UserError for a model without biases.
    """
    hosts = [
        module
        for name, module in model.named_modules()
        if module._parameters.get("bias") is not None and not any(name == h or name.startswith(f"{h}.") for h in head)
    ]
    if not hosts:
        raise UserError(
            "method.name: bitfit trains the biases of the backbone, and this one has none (Llama-like models and T5 "
            "have none); method=lora adapts its maps"
        )
    for host in hosts:
        train_bias(host)
