"""Files of tensors from anywhere: safetensors, and PyTorch's .bin without pickled objects.

A file that cannot be read ends in a UserError that names its folder; no code from it is run.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loralab.errors import UserError
from loralab.text import reason

__all__ = ["is_file", "read_json", "read_tensors", "shown"]

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def read_tensors(directory: Path, names: Sequence[str], among: Sequence[str]) -> dict[str, Tensor]:
    """The tensors of the first of the files `names` that is there, on the CPU, in the precision of the file.

    among: the files that such a folder has. Raises UserError where there is none, and for a file that is damaged, or
    holds anything but floating-point tensors.
    """
    path = next((directory / name for name in names if is_file(directory / name)), directory / names[0])
    _check_file(path, among)
    tensors = _loaded(path)
    if not isinstance(tensors, dict):
        raise UserError(f"{directory}: its {path.name} holds a {type(tensors).__name__}, not tensors by name")
    for key, value in tensors.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise UserError(
                f"{directory}: its {path.name}: {shown(key, 160)} is a {type(value).__name__}, not a tensor"
            )
        if value.dtype not in FLOATS or value.layout != torch.strided:
            kind = str(value.dtype if value.layout == torch.strided else value.layout).removeprefix("torch.")
            allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in FLOATS)
            raise UserError(f"{directory}: its {path.name}: {shown(key, 160)} is {kind}; adapters are {allowed}")
    return {key: value.detach() for key, value in tensors.items()}


def read_json(directory: Path, name: str, among: Sequence[str]) -> dict[str, Any]:
    """The object in a JSON file; `among`: the files that such a folder has, for the line where it is missing."""
    path = directory / name
    _check_file(path, among)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{directory}: its {name} is damaged ({reason(error)})") from error
    if not isinstance(found, dict):
        raise UserError(f"{directory}: its {name} is damaged (it holds {shown(found)}, not an object)")
    return found


def shown(value: Any, most: int = 60) -> str:
    """A value from a foreign file as it stands in JSON, in one line of at most `most` characters."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= most else f"{text[: most - 3]}..."


def is_file(path: Path) -> bool:
    """Whether there is a file that may be looked at; one that may not is named by the reader, later."""
    try:
        return path.is_file()
    except OSError:  # a name that is too long, a folder without permission
        return False


def _check_file(path: Path, among: Sequence[str]) -> None:
    try:
        if path.is_file():
            return
        there = path.is_dir()
    except OSError as error:
        raise UserError(f"{path.parent}: cannot be read ({reason(error)})") from error
    if there:
        raise UserError(f"{path.parent}: its {path.name} is a folder, not a file")
    raise UserError(f"{path.parent}: no {path.name} there; such an adapter has {' and '.join(among)}")


def _loaded(path: Path) -> Any:
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # readers of foreign files: they raise their own errors and nearly any of Python's
        pickled = path.suffix != ".safetensors"
        what = "is damaged, or holds more than tensors, which safetensors cannot" if pickled else "is damaged"
        why = reason(error).partition(". ")[0]  # without torch's advice to load anything at all
        raise UserError(f"{path.parent}: its {path.name} {what} ({why})") from error
