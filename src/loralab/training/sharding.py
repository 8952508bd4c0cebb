"""Fully sharded frozen weights (ZeRO stage 3, Rajbhandari et al. 2020; torch's FSDP2): each rank keeps 1/n of them.

A block's weights are gathered while it computes, so a rank's memory holds its shard and one block. What a method trains
is small and stays whole on every rank: gradients are summed, and optimizer, checkpoints and files are written, as
without sharding. All ranks take part in every forward pass, so all must compute equally many.
"""

from dataclasses import replace

import torch
from torch import nn

from loralab.compat.transformers import blocks
from loralab.training.distributed import Ranks

__all__ = ["shard_frozen"]


def shard_frozen(model: nn.Module, device: torch.device, ranks: Ranks) -> Ranks:
    """Moves `model` from the CPU to the ranks' devices, its frozen matrices in shards; `ranks`, now in step.

    The bits of a forward pass do not change. Trained parameters stay the same objects; frozen vectors stay whole, since
    they are small, and an adapter's file may have a bias of the backbone's.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (ranks.count,))
    whole = {parameter for parameter in model.parameters() if parameter.requires_grad or parameter.ndim < 2}
    for parameter in whole:
        parameter.data = parameter.data.to(device)
    for module in (*blocks(model), model):
        fully_shard(module, mesh=mesh, ignored_params=whole)
    return replace(ranks, in_step=True)
