"""What goes with `train.fsdp`, frozen weights in shards over several GPUs."""

from loralab.config.quantize import MOVED
from loralab.errors import UserError

__all__ = ["check_sharding"]


def check_sharding(asked: bool, method: str, quantize: str | None, probe_every: int | None) -> None:
    """Raises UserError without plain frozen weights, and for probes, which one rank computes alone."""
    if asked and quantize is not None:
        raise UserError(
            f"train.fsdp: got true with model.quantize={quantize}; codes are not sharded, so set one of the two to its "
            "default"
        )
    if asked and method in MOVED:
        raise UserError(
            f"train.fsdp: got true with method={method}, which leaves no weight as it is; frozen weights alone are "
            "sharded, so set it to false, or take method=lora"
        )
    if asked and probe_every is not None:
        raise UserError(
            f"train.fsdp: got true with probe.every={probe_every}; a probe is computed by one rank alone, which has a "
            "shard of the weights; set probe.every to null"
        )
