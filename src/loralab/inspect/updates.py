"""Where updates come from: a run's adapter or any LoRA folder of PEFT's, its start, and the frozen W beneath.

Numpy arrays by the layer's name in the backbone, for `loralab.inspect.spectra`. Fused projections are one layer, as
in PEFT: the A's of their blocks stacked, each B in its rows. An embedding is a map of one-hot vectors, so its k is
the number of tokens.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loralab.backbones.load import load, load_generator
from loralab.backbones.source import Source, locate
from loralab.errors import UserError
from loralab.inspect.spectra import ThinSVD, thin_svd
from loralab.methods.formats.peft_config import CONFIG
from loralab.methods.formats.peft_folder import read_lora
from loralab.methods.formats.peft_lora import factors_of, read_factors
from loralab.methods.formats.tensor_file import is_file
from loralab.methods.lora import shape_of
from loralab.methods.lora_layers import LoRALinear
from loralab.methods.targets import adaptable
from loralab.runs.build import adapted_backbone
from loralab.runs.outputs import of_run
from loralab.runs.plan import replan
from loralab.store.record import Record
from loralab.store.run_directory import RunDirectory, find, refuse_paused, status
from loralab.tasks import GENERATION

__all__ = ["Adapter", "Update", "find_adapter", "frozen_weights", "initial_updates", "read_updates"]

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Update:
    """delta W = scaling B A of one layer, with A (r, k) and B (d, r)."""

    A: Array
    B: Array
    scaling: float

    @property
    def rank(self) -> int:
        return len(self.A)

    @property
    def shape(self) -> tuple[int, int]:
        """Of delta W: (d, k)."""
        return len(self.B), self.A.shape[1]

    def svd(self) -> ThinSVD:
        """delta W = U diag(S) V^T."""
        return thin_svd(self.A, self.B, self.scaling)


@dataclass(frozen=True, eq=False)
class Adapter:
    """A trained adapter: a run's, or a folder in PEFT's format (`run` is None)."""

    name: str
    directory: Path
    run: RunDirectory | None
    updates: dict[str, Update]

    def weights(self) -> dict[str, Array]:
        """The frozen W (d, k) of each layer; UserError where it is not available on this machine."""
        if self.run is not None:
            return frozen_weights(self.run, self.updates)
        config = read_lora(self.directory).config
        base = config["base_model_name_or_path"]
        if base is None or not Path(base).is_dir():
            raise UserError(f"{self.directory}: its base_model_name_or_path, {base!r}, is no folder here")
        source = locate("base", package=None, hub=None, revision=None, path=base, cache=None)
        found = _weights(source, self.updates, generates=config["task_type"] in ("CAUSAL_LM", "SEQ_2_SEQ_LM"))
        for name, update in self.updates.items():
            if found[name].shape != update.shape:
                what = f"{name!r} is {found[name].shape} in {base}, and {update.shape} in the adapter"
                raise UserError(f"{self.directory}: made for another model: {what}")
        return found


def find_adapter(store: Path, wanted: str) -> Adapter:
    """The adapter of a folder with adapter_config.json, or of the run that `wanted` names as in `loralab show`.

    Raises UserError where there is none.
    """
    directory = Path(wanted)
    if is_file(directory / CONFIG):
        inside = RunDirectory(directory.resolve().parent)
        if directory.resolve() != inside.adapter or inside.record() is None:
            return Adapter(directory.resolve().name, directory, None, read_updates(directory))
        wanted = str(inside.path)
    elif directory.is_dir() and not is_file(directory / "config.yaml"):
        raise UserError(f"{wanted}: neither an adapter in PEFT format (no {CONFIG}) nor a run (no config.yaml)")
    run = find(store, wanted)
    _record(run)
    return Adapter(run.path.name, run.adapter, run, read_updates(run.adapter))


def read_updates(directory: Path) -> dict[str, Update]:
    """The updates in a folder of PEFT's format, a run's `adapter/` or PEFT's own; UserError where there are none."""
    updates = {name: Update(_array(A), _array(B), scaling) for name, (A, B, scaling) in read_factors(directory).items()}
    for name, update in updates.items():
        for factor, values in (("A", update.A), ("B", update.B)):
            if not np.isfinite(values).all():
                raise UserError(f"{directory}: {factor} of {name!r} is not finite; the adapter has diverged")
    return updates


def initial_updates(run: RunDirectory) -> dict[str, Update]:
    """A_0 and B_0: a run's factors before its first step, drawn again from its init_seed; nothing is trained.

    What was learned is A - A_0 and B - B_0 of the same layer. Raises UserError where the backbone has changed.
    """
    record = _record(run)
    planned = replan(run, record)
    model = adapted_backbone(planned, of_run(planned, record, run.adapter)).model
    return {name: Update(_array(A), _array(B), scaling) for name, (A, B, scaling) in factors_of(model).items()}


def frozen_weights(run: RunDirectory, names: Collection[str]) -> dict[str, Array]:
    """W (d, k) of the layers `names` of a run's backbone, as the checkpoint has them, outputs first.

    A run in bf16 rounded them. Raises UserError where the backbone has changed.
    """
    planned = replan(run, _record(run))
    return _weights(planned.source, names, generates=planned.config.task.name in GENERATION)


def _weights(source: Source, names: Collection[str], *, generates: bool) -> dict[str, Array]:
    settings: dict[str, Any] = {"dropout": 0.0, "attention": "eager", "dtype": torch.float32, "device": "cpu"}
    anything = 2  # of the head, which is not read
    if generates:
        backbone = load_generator(source, **settings)
    else:
        backbone = load(source, labels=anything, regression=False, seed=anything, **settings)
    maps = adaptable(backbone.model, ())
    weights = {}
    for name in names:
        if name not in maps:
            raise UserError(f"{source.key}: {source.origin} has no layer {name!r}")
        weight = cast(Tensor, maps[name].weight)
        outputs_first = shape_of(maps[name])[0] is LoRALinear  # a Conv1D and an embedding have their inputs first
        weights[name] = _array(weight if outputs_first else weight.T)
    return weights


def _record(run: RunDirectory) -> Record:
    """The record of a run that has an adapter; UserError for any other."""
    refuse_paused(run)
    record = run.finished()
    if record is None or not run.adapter.is_dir():
        raise UserError(f"{run.path.name}: has no adapter ({status(run)}); a LoRA run that ends in success has one")
    return record


def _array(tensor: Tensor) -> Array:
    return cast(Array, tensor.detach().float().cpu().numpy())
