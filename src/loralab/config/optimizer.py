"""Which settings go with `optim.name`."""

from collections.abc import Sequence

from loralab.errors import UserError

__all__ = ["OPTIMIZERS", "check_optimizer"]

# Each with the settings that it does not read.
OPTIMIZERS: dict[str, tuple[str, ...]] = {
    "adamw": (),
    "sgd": ("betas[1]", "eps"),
    "lion": ("eps",),
    "adafactor": ("betas[0]", "betas[1]", "eps"),
}
ADAMS = {"betas[0]": 0.9, "betas[1]": 0.999, "eps": 1e-8}
"""The defaults in conf/config.yaml of what not every optimizer reads."""


def check_optimizer(name: str, *, lr: float | str, betas: Sequence[float], eps: float) -> None:
    """Raises UserError for settings that the optimizer does not read, and for a rate by the law of another one."""
    if name != "adamw" and lr == "auto":
        raise UserError(
            f"optim.lr: got auto with optim.name={name}, and the rate law is AdamW's; give a rate, e.g. optim.lr=0.01"
        )
    values = {"betas[0]": betas[0], "betas[1]": betas[1], "eps": eps}
    for key in OPTIMIZERS[name]:
        if values[key] != ADAMS[key]:
            raise UserError(
                f"optim.{key}: got {values[key]} with optim.name={name}, which does not read it; leave it at "
                f"{ADAMS[key]}"
            )
