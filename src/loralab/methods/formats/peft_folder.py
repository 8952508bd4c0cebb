"""A folder with a LoRA adapter in PEFT's format, read and checked: fields, names and shapes, then against a model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from loralab.errors import UserError
from loralab.methods.formats.peft_config import CONFIG, LORA, WEIGHTS, PeftConfig, read_config
from loralab.methods.formats.tensor_file import read_tensors, shown
from loralab.methods.lora import shape_of
from loralab.methods.targets import adaptable

__all__ = ["PREFIX", "PeftLoRA", "read_lora"]

PREFIX = "base_model.model."
FACTOR = r"(?P<name>.+)\.lora_(?P<kind>A\.weight|B\.weight|embedding_A|embedding_B|magnitude_vector)"
LONGEST = 1000  # characters of a tensor's name


@dataclass(frozen=True, eq=False)
class PeftLoRA:
    """The adapter of a folder; tensors go by the names of modules and parameters in the bare backbone.

    factors: map -> A (r, d_in) and B (d_out, r), of one rank, which is the config's. magnitudes: of DoRA, all maps or
    none. whole: parameters that the file brings whole (the head, trained biases). frozen: map -> the copy of its frozen
    weight that PEFT saves beside an adapted embedding. tensors: all but these copies, by PEFT's names.
    """

    config: PeftConfig
    tensors: dict[str, Tensor]
    factors: dict[str, tuple[Tensor, Tensor]]
    magnitudes: dict[str, Tensor]
    whole: dict[str, Tensor]
    frozen: dict[str, Tensor]

    @property
    def directory(self) -> Path:
        return self.config.directory

    def scaling(self, name: str) -> float:
        """alpha / r or alpha / sqrt(r) of one map."""
        return self.config.scaling(name, len(self.factors[name][0]))

    def check_fit(self, model: nn.Module) -> None:
        """Raises UserError unless the file brings what its config promises for a bare `model`, and no more.

        That is: A and B for every targeted map, all tensors of the modules to save, and no copy of a frozen weight that
        differs from the model's. Shapes: see `check_shapes`.
        """
        for name, module in model.named_modules():
            if name and name not in self.factors and self.config.adapts(name):
                what = f"names {name!r} ({type(module).__name__}), of which {WEIGHTS[0]} has no A and B"
                raise self.config.refuse("target_modules", what)
        saved = self.config.saved
        for name, module in model.named_modules(remove_duplicate=False):
            for key in module.state_dict() if saved and name.endswith(saved) else ():
                if f"{name}.{key}" not in self.whole:
                    raise self.config.refuse("modules_to_save", f"{name}.{key} is not in {WEIGHTS[0]}")
        self.check_frozen(model)

    def check_frozen(self, model: nn.Module) -> None:
        """Raises UserError where the file's copy of a frozen weight differs from the model's."""
        modules = dict(model.named_modules())
        for name, copy in self.frozen.items():
            own = getattr(modules.get(name), "weight", None)
            if own is None or own.shape != copy.shape or not torch.equal(own.detach().cpu(), copy.to(own.dtype)):
                raise UserError(
                    f"{self.directory}: its copy of the frozen weight of {name!r} is not the model's: the adapter was "
                    "made on another checkpoint, or on one with more tokens"
                )

    def check_shapes(self, model: nn.Module) -> None:
        """Raises UserError unless every tensor has its place in a bare `model`."""
        maps, modules = adaptable(model, ()), dict(model.named_modules())
        for name, (A, B) in self.factors.items():
            if name not in maps:
                has = f"there it is a {type(modules[name]).__name__}" if name in modules else "there is none"
                raise UserError(f"{self.directory}: it adapts {name!r}, which this model has no map for: {has}")
            there = shape_of(maps[name])[1:]
            if there != (A.shape[1], len(B)):
                here = f"{A.shape[1]} to {len(B)}"
                raise UserError(f"{self.directory}: it adapts {name!r}, {here}; the model has {there[0]} to {there[1]}")
        parameters = dict(model.named_parameters(remove_duplicate=False))
        for name, value in self.whole.items():
            own = parameters.get(name)
            if own is None or own.shape != value.shape:
                has = "none" if own is None else f"{tuple(own.shape)}"
                here = f"{PREFIX}{name}: {tuple(value.shape)} in the file, {has} in the model"
                raise UserError(f"{self.directory}: it does not fit the model: {here}")


def read_lora(directory: Path) -> PeftLoRA:
    """The adapter of a folder in PEFT's LoRA format, whoever wrote it.

    Raises UserError if it is not there, damaged, not plain LoRA or DoRA, or if its config and its tensors disagree.
    """
    config = read_config(directory, {"LORA": LORA}, what="only LORA adapters can be loaded")
    tensors, frozen = _own_and_frozen(directory, read_tensors(directory, WEIGHTS, (CONFIG, WEIGHTS[0])))
    _check_layers(config)
    parts: dict[str, dict[str, Tensor]] = {}
    whole = {}
    for key, value in tensors.items():
        match = re.fullmatch(FACTOR, key.removeprefix(PREFIX))
        if match is not None:
            parts.setdefault(match["name"], {})[match["kind"]] = value
        elif ".lora_" in key:
            raise UserError(f"{directory}: its {shown(key, 160)} is no part of plain LoRA")
        else:
            whole[key.removeprefix(PREFIX).replace(".base_layer.", ".")] = value
    factors = {name: _factors(config, name, of) for name, of in parts.items()}
    magnitudes = {name: of["magnitude_vector"] for name, of in parts.items() if "magnitude_vector" in of}
    return PeftLoRA(config, tensors, factors, magnitudes, whole, frozen)


def _check_layers(config: PeftConfig) -> None:
    """Raises UserError where fields about layers contradict each other, as PEFT does."""
    if config["layers_pattern"] != [] and config["layers_to_transform"] == []:
        raise config.refuse("layers_pattern", "is there without layers_to_transform")
    if isinstance(config["target_modules"], str) and config["layers_to_transform"] != []:
        raise config.refuse("layers_to_transform", "is there with one expression in target_modules; list its names")


def _own_and_frozen(directory: Path, file: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A file's tensors without copies, and the copies of frozen weights by their map.

    With bias=all PEFT saves the head's biases three times; the other two have names of its wrappers.
    """
    own, frozen = {}, {}
    for key, value in file.items():
        name = key.removeprefix(PREFIX)
        if name == key or not name or len(key) > LONGEST or not key.isprintable():
            raise UserError(f"{directory}: its tensor {shown(key, 160)} has no name as PEFT gives them ({PREFIX}...)")
        if name.endswith(".base_layer.weight"):
            frozen[name.removesuffix(".base_layer.weight")] = value
        elif ".original_module." in name:
            continue
        elif ".modules_to_save." in name:
            plain = PREFIX + re.sub(r"\.modules_to_save(\.default)?\.", ".", name)
            if plain not in file or not torch.equal(file[plain], value):
                raise UserError(f"{directory}: its {shown(key, 160)} and {shown(plain, 160)} differ")
        else:
            own[key] = value
    return own, frozen


def _factors(config: PeftConfig, name: str, parts: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """A and B of one map, in the shapes and the rank that the config gives it."""
    directory = config.directory
    kinds = ("A.weight", "B.weight") if "A.weight" in parts or "B.weight" in parts else ("embedding_A", "embedding_B")
    for kind in kinds:
        if kind not in parts:
            what = f"{kind.removesuffix('.weight')} is missing"
            raise UserError(f"{directory}: its update of {name!r} is not scaling B A of two matrices: {what}")
    if extra := sorted(parts.keys() - {*kinds, "magnitude_vector"}):
        raise UserError(f"{directory}: its update of {name!r} has {kinds[0]} and {extra[0]}, one too many")
    A, B = (parts[kind] for kind in kinds)
    shapes = f"A is {tuple(A.shape)} and B is {tuple(B.shape)}"
    if A.ndim != 2 or B.ndim != 2 or len(A) != B.shape[1] or 0 in (*A.shape, *B.shape):
        raise UserError(f"{directory}: its update of {name!r} is not scaling B A of two matrices: {shapes}")
    if len(A) != config.rank(name):
        raise UserError(f"{directory}: its update of {name!r} has rank {len(A)}, and r={config.rank(name)} in {CONFIG}")
    magnitude = parts.get("magnitude_vector")
    if (magnitude is not None) is not config["use_dora"]:
        what = f"the update of {name!r} has {'a' if magnitude is not None else 'no'} magnitude"
        raise config.refuse("use_dora", f"got {str(config['use_dora']).lower()}, but {what}")
    if magnitude is not None and magnitude.shape != (len(B),):
        raise UserError(f"{directory}: its magnitude of {name!r} is {tuple(magnitude.shape)}; of B, {tuple(B.shape)}")
    if not config.adapts(name):
        raise config.refuse("target_modules", f"{name!r} is not among them, but {WEIGHTS[0]} has its A and B")
    return A, B
