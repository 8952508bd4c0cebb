"""Task adapters for serving: read from a run or a PEFT folder, and checked against the backbone.

`loralab.serving.switch` merges one at a time into the weights; `loralab.serving.mixed_batch` keeps several beside
them, for batches whose rows use different ones. Both take a bare backbone (without loralab's modules) and keep its
modules' names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from loralab.errors import UserError
from loralab.methods.formats.peft_lora import CONFIG, Delta, factors_of, read_factors
from loralab.methods.lora import bias_updates, shape_of
from loralab.methods.lora_layers import LoRALinear, LoRAModule
from loralab.methods.targets import adaptable

__all__ = ["TaskAdapter", "adapter_of", "check_fit", "input_first", "place", "read_adapter"]

PREFIX = "base_model.model."
WEIGHTS = "adapter_model.safetensors"
SPARE = (".lora_", ".base_layer.weight", ".modules_to_save.", ".original_module.")  # factors, and PEFT's copies


@dataclass(frozen=True, eq=False)
class TaskAdapter:
    """What a task changes in a backbone, by the bare backbone's names.

    updates: map -> A (r, d_in), B (d_out, r) and scaling, delta W = scaling B A; the blocks of a fused map are one.
    whole: parameter -> its value (the head; trained biases).
    """

    updates: dict[str, Delta]
    whole: dict[str, Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        factors = [t for A, B, _ in self.updates.values() for t in (A, B)]
        return sum(t.nbytes for t in (*factors, *self.whole.values()))


def read_adapter(directory: Path) -> TaskAdapter:
    """The adapter of a run's directory, or of a folder in PEFT's format.

    Raises UserError where there is none, or none that is plain LoRA.
    """
    from safetensors.torch import load_file

    inside = directory / "adapter"
    if not (directory / CONFIG).is_file() and inside.is_dir():
        directory = inside
    if (directory / "prefix" / CONFIG).is_file():
        raise UserError(f"{directory}: LoRA with a prefix (method=lora_prefix), whose virtual tokens are not served")
    updates = read_factors(directory)
    file: dict[str, Tensor] = load_file(directory / WEIGHTS)
    kept = {key: value for key, value in file.items() if not any(part in key for part in SPARE)}
    names = {key: key.removeprefix(PREFIX).replace(".base_layer.", ".") for key in kept}
    return TaskAdapter(updates, {names[key]: value for key, value in kept.items()})


def adapter_of(model: nn.Module, head: tuple[str, ...]) -> TaskAdapter:
    """The same of a model in memory (`lora.attach`), as copies: A and B, trained biases, and the head's modules."""
    parameters = [(f"{path}.{key}", t) for path in head for key, t in model.get_submodule(path).named_parameters()]
    whole = {name: t.detach().clone() for name, t in parameters}
    for host, (module, update) in bias_updates(model).items():
        whole[f"{host.removesuffix('.base')}.bias"] = cast(Tensor, module.bias).float() + update.b.detach()
    updates = {name: (A.clone(), B.clone(), scaling) for name, (A, B, scaling) in factors_of(model).items()}
    return TaskAdapter(updates, whole)


def place(adapters: Mapping[str, TaskAdapter], device: torch.device) -> dict[str, TaskAdapter]:
    """The adapters with their tensors on a device: factors in fp32, the rest in its own precision."""
    return {
        name: TaskAdapter(
            {at: (A.float().to(device), B.float().to(device), s) for at, (A, B, s) in adapter.updates.items()},
            {at: value.to(device) for at, value in adapter.whole.items()},
        )
        for name, adapter in adapters.items()
    }


def check_fit(model: Any, adapters: Mapping[str, TaskAdapter], *, key: str) -> None:
    """Raises UserError, in a line that starts with `key`, where one of the adapters was not made for `model`.

    Numbers of classes may differ: outputs of modules outside the base model.
    """
    if not adapters:
        raise UserError(f"{key}: no adapters; give a mapping from name to adapter")
    if any(isinstance(module, LoRAModule) for module in model.modules()):
        raise UserError(f"{key}: the model has an adapter in place already; give the bare backbone")
    maps, parameters = adaptable(model, ()), dict(model.named_parameters(remove_duplicate=False))
    for name, adapter in adapters.items():
        for at, (A, B, _) in adapter.updates.items():
            there = shape_of(maps[at])[1:] if at in maps else None
            if there != (A.shape[1], B.shape[0]):
                has = f"{there[0]} to {there[1]}" if there is not None else "no such map"
                raise UserError(f"{key}: {name!r} adapts {at}, {A.shape[1]} to {B.shape[0]}; the model has {has}")
        for at, value in adapter.whole.items():
            own = parameters.get(at)
            free = not at.startswith(f"{model.base_model_prefix}.")
            if own is None or own.shape[free:] != value.shape[free:] or own.ndim != value.ndim:
                has = "no such parameter" if own is None else f"{tuple(own.shape)}"
                raise UserError(f"{key}: {name!r} brings {at}, {tuple(value.shape)}; the model has {has}")


def input_first(host: nn.Module) -> bool:
    """Whether a map keeps its weight as (d_in, d_out): a Conv1D, an embedding."""
    return shape_of(host)[0] is not LoRALinear
