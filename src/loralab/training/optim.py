"""Parameter groups of LoRA+ over stock optimizers, and learning-rate schedules.

LoRA+ (Hayou et al. 2024): train B at lr_B = ratio * lr_A. It is only a choice of parameter groups.
"""

import importlib.util
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import nn

from loralab.errors import UserError

__all__ = ["adamw", "group_table", "optimizer", "param_groups", "param_roles", "schedule"]

BIAS_ROLES = ("bias", "norm")


def param_roles(model: nn.Module, head: Sequence[str]) -> dict[str, str]:
    """Trainable parameter name -> A, B, magnitude, weight, embedding, head, bias or norm, from the module that owns it.

    loralab's modules declare theirs (`parameter_roles`); every parameter inside a head module is `head`.
    Raises AssertionError for a trainable parameter without a role.
    """
    roles = {}
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            if not parameter.requires_grad:
                continue
            if any(prefix == h or prefix.startswith(f"{h}.") for h in head):
                roles[name] = "head"
            else:
                assert hasattr(module, "parameter_roles"), f"{name} is trainable, but has no role"
                roles[name] = module.parameter_roles[name.rsplit(".", 1)[-1]]
    return roles


def param_groups(
    model: nn.Module,
    *,
    head: Sequence[str],
    lr: float,
    ratio: float,
    head_lr: float | None,
    embedding_lr: float,
    weight_decay: float,
    head_bias_lr: float | None = None,
    layout: Literal["roles", "reference"] = "roles",
) -> list[dict[str, Any]]:
    """The groups of LoRA+ for a torch optimizer: {name, roles, names, params, lr, weight_decay}, empty ones left out.

    lr is lr_A; lr_B = ratio * lr; head_lr None means lr, head_bias_lr None means head_lr; embedding_lr is for both
    factors of embedding adapters.

    `roles`: A (lr), B (ratio * lr), head (head_lr), embedding, and trained biases of the backbone: they act on outputs
    as B does, and get ratio * lr. Weight decay reaches all but biases and norms (vectors). Full fine-tuning has weights
    (lr) in the place of A and B, and needs a ratio of 1. DoRA's magnitudes get lr, since they start at the weights'
    norms and not at zero as B does, and no decay, which would shrink the frozen weights.
    `reference`: the four groups of the released optimizer, first match wins: adapters of embeddings; B and vectors with
    decay; B and vectors without (biases and norms); all else at lr, the head's matrices among it. Magnitudes are
    vectors with decay.

    The groups partition the trainable parameters: each is in exactly one, or AssertionError.
    """
    roles = param_roles(model, head)
    place = _by_role if layout == "roles" else _as_reference
    rates = {"lr": lr, "lr_B": lr * ratio, "head_lr": lr if head_lr is None else head_lr, "embedding_lr": embedding_lr}
    rates["head_bias_lr"] = rates["head_lr"] if head_bias_lr is None else head_bias_lr
    groups: dict[str, dict[str, Any]] = {}
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    without_decay = (*BIAS_ROLES, "magnitude") if layout == "roles" else BIAS_ROLES
    norms = {n for n, m in model.named_modules() if isinstance(m, (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm))}
    for name, parameter in trainable.items():
        undecayed = roles[name] in without_decay or name.endswith("bias") or name.rpartition(".")[0] in norms
        group, rate = place(roles[name], parameter.ndim == 1, undecayed)
        decay = 0.0 if undecayed else weight_decay
        empty = {"name": group, "roles": [], "names": [], "params": [], "lr": rates[rate], "weight_decay": decay}
        entry = groups.setdefault(group, empty)
        assert entry["weight_decay"] == decay, f"{name}: {group} holds tensors with and without weight decay"
        if roles[name] not in entry["roles"]:
            entry["roles"].append(roles[name])
        entry["names"].append(name)
        entry["params"].append(parameter)
    listed = [name for group in groups.values() for name in group["names"]]
    assert sorted(listed) == sorted(trainable), "the groups do not partition the trainable parameters"
    return list(groups.values())


def _by_role(role: str, _vector: bool, undecayed: bool) -> tuple[str, str]:
    if role == "head":
        return ("head.bias", "head_bias_lr") if undecayed else ("head", "head_lr")
    rates = {"A": "lr", "weight": "lr", "magnitude": "lr", "B": "lr_B", "bias": "lr_B", "norm": "lr_B"}
    return role, (rates | {"embedding": "embedding_lr"})[role]


def _as_reference(role: str, vector: bool, undecayed: bool) -> tuple[str, str]:
    if role == "embedding":
        return "embedding", "embedding_lr"
    if role == "B" or vector:
        return ("groupB_no_decay" if undecayed else "groupB"), "lr_B"
    return "groupA", "lr"


def group_table(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per group: name, tensors, parameters, lr, weight_decay."""
    return [
        {
            "name": group["name"],
            "tensors": len(group["params"]),
            "parameters": sum(p.numel() for p in group["params"]),
            "lr": group["lr"],
            "weight_decay": group["weight_decay"],
        }
        for group in groups
    ]


def optimizer(
    name: str, groups: Sequence[dict[str, Any]], *, betas: Sequence[float], eps: float
) -> torch.optim.Optimizer:
    """The stock optimizer of that name over the groups; each keeps its peak rate as `peak_lr` for the schedule.

    adamw: betas, eps. sgd: with momentum betas[0]; weight decay is added to the gradient, as L2. lion (Chen et al.
    2023): the sign of a moment, with betas; UserError where lion-pytorch is not installed. adafactor (Shazeer and Stern
    2018): its second moments are a row and a column for each matrix, and an update has a root mean square of at most
    its rate. It is transformers', whose rates need not be multiplied by the size of the parameter: torch's always are,
    and B, which starts at 0, would move at a thousandth of its rate.
    """
    found: torch.optim.Optimizer
    if name == "adamw":
        return adamw(groups, betas=betas, eps=eps)
    if name == "sgd":
        return torch.optim.SGD(_with_peaks(groups), momentum=betas[0])
    if name == "lion":
        if importlib.util.find_spec("lion_pytorch") is None:
            raise UserError("optim.name=lion needs lion-pytorch; run: pip install 'loralab[lion]'")
        from lion_pytorch import Lion

        found = Lion(_with_peaks(groups), betas=(betas[0], betas[1]))
        return found
    from transformers import Adafactor  # here, since pretraining and benchmarks import this module without it

    found = Adafactor(_with_peaks(groups), scale_parameter=False, relative_step=False)
    return found


def adamw(groups: Sequence[dict[str, Any]], *, betas: Sequence[float], eps: float) -> torch.optim.AdamW:
    """Stock AdamW over the groups; each keeps its peak rate as `peak_lr` for the schedule.

    Fused: one kernel per tensor instead of about ten. For MiniLM's 26 trained tensors (rank 8 on q and v, the head) on
    one thread of a 2-core CPU a step takes 0.2 ms, against 0.6 (foreach) and 0.75 (neither).
    """
    return torch.optim.AdamW(_with_peaks(groups), betas=(betas[0], betas[1]), eps=eps, fused=True)


def _with_peaks(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**group, "peak_lr": group["lr"]} for group in groups]


def schedule(kind: Literal["linear", "cosine", "constant"], *, warmup: float, steps: int) -> Callable[[int], float]:
    """The factor on every group's peak rate at update t = 0, 1, ..., steps - 1; a pure function of t.

    warmup below 1 is a share of `steps` (rounded up, as transformers does), else a number of steps; the rate then
    rises linearly from 0.
    """
    rise = math.ceil(warmup * steps) if warmup < 1 else int(warmup)

    def factor(t: int) -> float:
        if t < rise:
            return t / rise
        progress = (t - rise) / max(1, steps - rise)
        if kind == "linear":
            return max(0.0, 1.0 - progress)
        if kind == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
        return 1.0

    return factor
