"""Task adapters for serving: read from a run or a PEFT folder, and checked against the backbone.

`loralab.serving.switch` merges one at a time into the weights; `loralab.serving.mixed_batch` keeps several beside
them, for batches whose rows use different ones. Both take a bare backbone (without loralab's modules) and keep its
modules' names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from loralab.errors import UserError
from loralab.methods.formats.peft_config import CONFIG
from loralab.methods.formats.peft_folder import PeftLoRA, read_lora
from loralab.methods.formats.peft_lora import Delta, factors_in, factors_of
from loralab.methods.formats.tensor_file import is_file
from loralab.methods.lora import bias_updates, shape_of
from loralab.methods.lora_layers import LoRALinear, LoRAModule
from loralab.methods.targets import adaptable

__all__ = ["TaskAdapter", "adapter_of", "check_fit", "input_first", "place", "read_adapter"]


@dataclass(frozen=True, eq=False)
class TaskAdapter:
    """What a task changes in a backbone, by the bare backbone's names.

    updates: map -> A (r, d_in), B (d_out, r) and scaling, delta W = scaling B A; the blocks of a fused map are one.
    whole: parameter -> its value (the head; trained biases). folder: what it was read from.
    """

    updates: dict[str, Delta]
    whole: dict[str, Tensor]
    folder: PeftLoRA | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        factors = [t for A, B, _ in self.updates.values() for t in (A, B)]
        return sum(t.nbytes for t in (*factors, *self.whole.values()))


def read_adapter(directory: Path) -> TaskAdapter:
    """The adapter of a run's directory, or of a folder in PEFT's format.

    Raises UserError where there is none, or none that is plain LoRA.
    """
    inside = directory / "adapter"
    if not is_file(directory / CONFIG) and is_file(inside / CONFIG):
        directory = inside
    if is_file(directory / "prefix" / CONFIG):
        raise UserError(f"{directory}: LoRA with a prefix (method=lora_prefix), whose virtual tokens are not served")
    found = read_lora(directory)
    return TaskAdapter(factors_in(found), found.whole, found)


def adapter_of(model: nn.Module, head: tuple[str, ...]) -> TaskAdapter:
    """The same of a model in memory (`lora.attach`), as copies: A and B, trained biases, and the head's modules."""
    parameters = [(f"{path}.{key}", t) for path in head for key, t in model.get_submodule(path).named_parameters()]
    whole = {name: t.detach().clone() for name, t in parameters}
    for host, (module, update) in bias_updates(model).items():
        whole[f"{host.removesuffix('.base')}.bias"] = cast(Tensor, module.bias).float() + update.b.detach()
    updates = {name: (A.clone(), B.clone(), scaling) for name, (A, B, scaling) in factors_of(model).items()}
    return TaskAdapter(updates, whole)


def place(model: nn.Module, adapters: Mapping[str, TaskAdapter]) -> dict[str, TaskAdapter]:
    """The adapters with their tensors on the model's device: factors in fp32, the rest in its own precision."""
    device = next(model.parameters()).device
    return {
        name: TaskAdapter(
            {at: (A.float().to(device), B.float().to(device), s) for at, (A, B, s) in adapter.updates.items()},
            {at: value.to(device) for at, value in _under_every_name(model, adapter).items()},
        )
        for name, adapter in adapters.items()
    }


def _under_every_name(model: nn.Module, adapter: TaskAdapter) -> dict[str, Tensor]:
    """What an adapter brings whole, also for the parameters that are tied to it (T5's tables).

    The modules that PEFT copies (`modules_to_save`) are no longer tied, and those of a run and adapted maps likewise.
    """
    if adapter.folder is None:
        return adapter.whole
    saves, names = adapter.folder.config.saves, dict(model.named_parameters(remove_duplicate=False))
    apart = {f"{name}.weight" for name in adapter.updates}
    shared = {id(names[at]): value for at, value in adapter.whole.items() if not saves(at)}
    tied = [at for at, own in names.items() if id(own) in shared and at not in apart and not saves(at)]
    return {at: shared[id(names[at])] for at in tied} | adapter.whole


def check_fit(model: Any, adapters: Mapping[str, TaskAdapter], *, key: str) -> None:
    """Raises UserError, in a line that starts with `key`, where one of the adapters was not made for `model`.

    Numbers of classes may differ: outputs of modules outside the base model.
    """
    if not adapters:
        raise UserError(f"{key}: no adapters; give a mapping from name to adapter")
    if any(isinstance(module, LoRAModule) for module in model.modules()):
        raise UserError(f"{key}: the model has an adapter in place already; give the bare backbone")
    maps, parameters = adaptable(model, ()), dict(model.named_parameters(remove_duplicate=False))
    for each, adapter in adapters.items():
        name = repr(each) if adapter.folder is None else f"{each!r} ({adapter.folder.directory})"
        _check_folder(model, name, adapter, key)
        for at, (A, B, _) in adapter.updates.items():
            there = shape_of(maps[at])[1:] if at in maps else None
            if there != (A.shape[1], B.shape[0]):
                has = f"{there[0]} to {there[1]}" if there is not None else "no such map"
                raise UserError(f"{key}: {name} adapts {at}, {A.shape[1]} to {B.shape[0]}; the model has {has}")
        for at, value in adapter.whole.items():
            own = parameters.get(at)
            free = not at.startswith(f"{model.base_model_prefix}.")
            if own is None or own.shape[free:] != value.shape[free:] or own.ndim != value.ndim:
                has = "no such parameter" if own is None else f"{tuple(own.shape)}"
                raise UserError(f"{key}: {name} brings {at}, {tuple(value.shape)}; the model has {has}")
        _check_classes(parameters, name, adapter, key)


def _check_classes(parameters: Mapping[str, nn.Parameter], name: str, adapter: TaskAdapter, key: str) -> None:
    """Raises UserError where a head's weight and its bias would have different numbers of classes."""
    for at, value in adapter.whole.items():
        owner = at.rpartition(".")[0]
        for leaf in ("weight", "bias"):
            other = f"{owner}.{leaf}"
            if other in parameters and len(parameters[other]) == len(parameters[at]):
                size = len(adapter.whole.get(other, parameters[other]))
                if size != len(value) or size == 0:
                    raise UserError(f"{key}: {name} brings {at} for {len(value)} outputs, but its {other} has {size}")


def _check_folder(model: nn.Module, name: str, adapter: TaskAdapter, key: str) -> None:
    if adapter.folder is not None:
        try:
            adapter.folder.check_fit(model)
        except UserError as error:
            raise UserError(f"{key}: {name}: {error}") from error


def input_first(host: nn.Module) -> bool:
    """Whether a map keeps its weight as (d_in, d_out): a Conv1D, an embedding."""
    return shape_of(host)[0] is not LoRALinear
