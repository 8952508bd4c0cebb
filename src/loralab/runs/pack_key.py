"""Which runs may train in one pack (loralab.runs.pack)."""

import json
from typing import Any

from loralab.runs.plan import Plan, drops_out

__all__ = ["pack_key"]

# What runs of one pack may differ in; of a run's identity (runs/plan.py).
FREE = ("init_seed", "data_seed", "optim")
FREE_OF_LORA = ("rank", "alpha", "ratio", "init", "init_dist", "scaling", "rank_pattern")


def pack_key(planned: Plan) -> str | None:
    """Equal for runs that may be of one pack; None for a run that trains alone.

    Alone: with dropout, which draws from the process's one generator; with `train.micro_batch_size`, which bounds the
    memory; with several threads on a CPU, since a pack computes on one; and with trained parameters other than A, B and
    the head.
    """
    config = planned.config
    plain = config.method.name in ("lora", "head") and not config.lora.dora and config.lora.bias == "none"
    threads = planned.device.type == "cpu" and (config.train.threads or 1) > 1
    if not plain or drops_out(config) or threads or config.train.micro_batch_size is not None:
        return None
    values: dict[str, Any] = {name: value for name, value in planned.identity.items() if name not in FREE}
    if "lora" in values:
        values["lora"] = {name: value for name, value in values["lora"].items() if name not in FREE_OF_LORA}
    drawn = config.init_seed if config.model.widen > 1 else None  # the noise of the copies
    values |= {"drawn": drawn, "device": str(planned.device)}
    return json.dumps(values, sort_keys=True)
