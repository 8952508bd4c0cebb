"""Adapter format of the methods that PEFT has no format for: adapter.json and adapter.safetensors.

Used at the end of a run and when a run is loaded. LoRA uses PEFT's format (`loralab.methods.formats.peft_lora`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from loralab.errors import UserError
from loralab.files import write_bytes, write_json
from loralab.methods.formats.tensor_file import read_json, read_tensors, shown

__all__ = ["CONFIG", "FORMAT", "WEIGHTS", "describe", "load", "save"]

CONFIG = "adapter.json"
WEIGHTS = "adapter.safetensors"
FORMAT = 1
KEYS: dict[str, type] = {"format": int, "method": str, "settings": dict, "base_model": str, "head": list}


def save(
    model: nn.Module,
    directory: Path,
    *,
    method: str,
    settings: Mapping[str, Any],
    head: Sequence[str],
    base_model: str,
) -> None:
    """Writes every trained tensor of `model`, in fp32 under its name, and the settings needed to rebuild its modules.

    settings: those of the method (JSON values); base_model: the name or path of the backbone. Equal weights have
    equal bytes. Each file is written atomically, the weights last; an older adapter in `directory` is replaced.
    """
    from safetensors.torch import save as to_bytes

    tensors = {name: p.detach().cpu().contiguous() for name, p in _trained(model).items()}
    description = {
        "format": FORMAT,
        "method": method,
        "settings": dict(settings),
        "base_model": base_model,
        "head": list(head),
    }
    write_json(directory / CONFIG, description)
    write_bytes(directory / WEIGHTS, to_bytes(tensors, metadata={"format": "pt"}))


def describe(directory: Path) -> dict[str, Any]:
    """The content of adapter.json: format, method, settings, base_model, head.

    Raises UserError if it is missing or has another format.
    """
    found = read_json(directory, CONFIG, (CONFIG, WEIGHTS))
    if found.get("format") != FORMAT or not found.keys() >= KEYS.keys():
        raise UserError(
            f"{directory}: its {CONFIG} is of format {shown(found.get('format'))}, or lacks a key; this version reads "
            f"format {FORMAT}, with {', '.join(sorted(KEYS))}"
        )
    for key, value in found.items():
        if not isinstance(value, KEYS.get(key, object)):
            raise UserError(f"{directory}: its {CONFIG}: {key}: got {shown(value)}; allowed: a {KEYS[key].__name__}")
    return found


def load(model: nn.Module, directory: Path) -> None:
    """Loads the tensors of `directory`, bit for bit, into a `model` that already has the method's modules.

    Raises UserError, naming the difference, if names, shapes or precision differ; the model is then unchanged.
    """
    described = describe(directory)
    file = read_tensors(directory, (WEIGHTS,), (CONFIG, WEIGHTS))
    own = _trained(model)
    for name in [*own, *sorted(file.keys() - own.keys())]:
        here, there = (_kind(tensors.get(name)) for tensors in (own, file))
        if here != there:
            raise UserError(
                f"{directory}: its {described['method']} adapter does not fit the model: {name}: {there} in the file, "
                f"{here} in the model"
            )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(file[name])


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert all(p.dtype == torch.float32 for p in trained.values()), "a trained tensor is in fp32"
    return trained


def _kind(tensor: Tensor | None) -> str:
    return "none" if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
