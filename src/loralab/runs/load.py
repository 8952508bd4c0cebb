"""A finished run, or an export of one -> its model at the step of `train.keep`: `from loralab import load_run`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from loralab.backbones.load import Backbone
from loralab.config.checks import name_of_device
from loralab.device import pick_device
from loralab.errors import UserError
from loralab.methods.registry import CATALOGUE
from loralab.runs.build import trained_backbone
from loralab.runs.outputs import Outputs, of_run
from loralab.runs.plan import Plan, replan
from loralab.store.record import Record
from loralab.store.run_directory import RunDirectory, refuse_paused, status

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["TrainedRun", "load_run", "restore"]


@dataclass(frozen=True)
class TrainedRun:
    """A finished run with its trained model, in fp32 and in eval mode, and what the model gives."""

    record: Record
    plan: Plan
    backbone: Backbone
    outputs: Outputs


def load_run(directory: str | Path) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """The trained model, in fp32 on the CPU and in eval mode, and its tokenizer.

    directory: a run's (outputs/runs/...), or one that `loralab export` wrote with record.json. `model(**batch).logits`
    equal the logits in predictions.parquet at `train.keep`, up to the run's precision. The training data is not needed.
    Raises UserError for a run that did not end in success, and where its backbone has changed or is gone.
    """
    backbone = restore(RunDirectory(Path(directory))).backbone
    return backbone.model, backbone.tokenizer


def restore(run: RunDirectory, device: str = "cpu") -> TrainedRun:
    """The run as `load_run` loads it, on a device: auto, cpu, cuda, cuda:N or mps."""
    name_of_device("--device", device)
    refuse_paused(run)
    record = run.finished()
    if record is None or record["status"] != "success":
        raise UserError(f"{run.path}: no finished run to load ({status(run)}); give a directory with its record.json")
    planned = replace(replan(run, record), device=pick_device(device, key="--device"))
    backbone = trained_backbone(planned, run, record)
    backbone.model.eval()
    folder = run.path / CATALOGUE[planned.config.method.name].folder
    return TrainedRun(record, planned, backbone, of_run(planned, record, folder))
