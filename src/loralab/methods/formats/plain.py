"""A trained model as a plain transformers checkpoint: the adapter is merged, and no loralab module is left.

Used by `loralab export --merged`, and at the end of a run of full fine-tuning.
"""

import contextlib
import copy
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from loralab.backbones.source import Source
from loralab.backbones.weights import quiet
from loralab.errors import UserError
from loralab.files import atomic_directory
from loralab.methods.formats.kept_config import (
    keep_base_config,
    save_tokenizer,
    scales_output,
    tied_apart,
    untie,
    with_copies,
)
from loralab.methods.lora import bias_updates, lora_modules
from loralab.text import reason

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["export_merged", "load_model", "load_weights", "save_model", "without_bars"]


def export_merged(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    directory: Path,
    *,
    dtype: torch.dtype,
    base: Source | None = None,
) -> None:
    """Writes a plain transformers checkpoint in `dtype`: W0 + scaling B A, trained biases, head.

    `AutoModelForSequenceClassification` and `AutoTokenizer` load it. The model does not change, and frozen tensors
    that are already in `dtype` are not copied. `directory` is written completely or not at all. base: the source whose
    config and generation settings the checkpoint keeps; None: the model's own.
    Raises UserError if `directory` exists and is not empty.
    """
    config = copy.deepcopy(model.config)
    with torch.device("meta"):
        plain = type(model)(config)
    plain.load_state_dict(_plain_state(model, dtype, _tied(plain)), assign=True)
    apart = untie(plain)
    with without_bars(), atomic_directory(directory) as temporary:
        plain.save_pretrained(temporary, state_dict=with_copies(plain, apart))
        if base is not None:
            keep_base_config(plain, temporary, base, untied=bool(apart))
        save_tokenizer(tokenizer, temporary, base)


def save_model(model: "PreTrainedModel", directory: Path, base: Source | None = None) -> None:
    """Writes config.json and model.safetensors of a model without adapters, in its precision.

    base: as in `export_merged`. The tokenizer is not saved. `directory` is written completely or not at all; an
    existing one is replaced.
    """
    shutil.rmtree(directory, ignore_errors=True)
    # where the family scales its output while tied, the key stays: transformers does not tie tables that differ
    apart = frozenset[str]() if scales_output(model.config) else tied_apart(model)
    with without_bars(), atomic_directory(directory) as temporary:
        model.save_pretrained(temporary, state_dict=with_copies(model, apart))
        if base is not None:
            keep_base_config(model, temporary, base, untied=bool(apart))


def load_model(directory: Path, kind: Any) -> "PreTrainedModel":
    """Loads a model saved by `save_model`, in fp32 on the CPU; kind: its class or one of transformers' Auto classes.

    Raises UserError, naming the folder, where it is damaged, or lacks tensors, which transformers would draw at random.
    """
    settings: dict[str, Any] = {"dtype": torch.float32, "local_files_only": True, "output_loading_info": True}
    try:
        with quiet():
            model, found = kind.from_pretrained(directory, ignore_mismatched_sizes=True, **settings)
    except Exception as error:  # transformers' reader of a folder: it raises nearly any of Python's errors, and others'
        raise UserError(f"{directory}: its model is damaged ({reason(error)})") from error
    found["mismatched_keys"] = {name for name, *_ in found["mismatched_keys"]}
    for what in ("missing", "unexpected", "mismatched"):
        for key in sorted(found[f"{what}_keys"]):
            raise UserError(f"{directory}: its model.safetensors does not fit its config.json: {key} is {what}")
    return cast("PreTrainedModel", model)


def load_weights(model: nn.Module, directory: Path) -> None:
    """Loads the tensors of a folder of `save_model` into a model of the same class; UserError where it is another."""
    own, file = model.state_dict(), load_model(directory, type(model)).state_dict()
    for key in sorted(own.keys() | file.keys()):
        here, there = (tuple(t[key].shape) if key in t else "none" for t in (own, file))
        if here != there:
            raise UserError(f"{directory}: it does not fit the model: {key}: {there} in the file, {here} in the model")
    model.load_state_dict(file)


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Turns off transformers' progress bars, and restores the setting afterwards."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            logging.enable_progress_bar()


def _plain_state(model: nn.Module, dtype: torch.dtype, tied: Sequence[set[str]]) -> dict[str, Tensor]:
    """The state dict of the plain backbone, with the updates added to its weights; tied tensors stay tied.

    Where one of several `tied` tensors has an update, each of them is a tensor of its own: transformers leaves out all
    but one of those that share their memory, and would tie the rest to the updated one.
    """
    tensors, updates = model.state_dict(), _updates(model)
    state: dict[str, Tensor] = {}
    cast_once: dict[tuple[int, torch.Size], Tensor] = {}
    names = _plain_names(model)
    updated = {names[key] for key in updates}
    apart = {name for group in tied if group & updated for name in group}
    for key, plain in names.items():
        tensor = tensors[key]
        if key in updates:
            state[plain] = (tensor.float() + updates[key]()).to(dtype)
        elif plain in apart:
            state[plain] = tensor.to(dtype, copy=True)
        elif tensor.is_floating_point():
            state[plain] = cast_once.setdefault((tensor.data_ptr(), tensor.shape), tensor.to(dtype))
        else:
            state[plain] = tensor
    return state


def _tied(plain: nn.Module) -> list[set[str]]:
    """The groups of names that a plain backbone has for one parameter."""
    groups: dict[int, set[str]] = {}
    for name, parameter in plain.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), set()).add(name)
    return [names for names in groups.values() if len(names) > 1]


def _plain_names(model: nn.Module) -> dict[str, str]:
    """The keys of the model's state dict that are the backbone's -> their names in a plain backbone (no `.base`)."""
    modules = lora_modules(model)
    added = {f"{name}.{key}" for name, m in modules.items() for key in m.state_dict() if not key.startswith("base.")}
    added |= {f"{host}.bias_update.{key}" for host, (_, b) in bias_updates(model).items() for key in b.state_dict()}
    names = {}
    for key in model.state_dict():
        owner, _, leaf = key.rpartition(".")
        inner = owner.removesuffix(".base")
        if key not in added:
            names[key] = f"{inner}.{leaf}" if inner in modules else key
    return names


def _updates(model: nn.Module) -> dict[str, Callable[[], Tensor]]:
    """Functions that compute the updates of frozen tensors, by key: delta W of each unmerged map, and trained biases.

    They are not computed at once, since delta W takes as much memory as the weight.
    """
    updates: dict[str, Callable[[], Tensor]] = {
        f"{name}.base.weight": module.delta for name, module in lora_modules(model).items() if not module.merged
    }
    return updates | {f"{host}.bias": update.b.detach for host, (_, update) in bias_updates(model).items()}
