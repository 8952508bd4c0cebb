"""A finished run, or an export of one -> its model at the step of `train.keep`: `from loralab import load_run`."""

from pathlib import Path
from typing import TYPE_CHECKING

from loralab.errors import UserError
from loralab.runs.build import trained_backbone
from loralab.runs.plan import replan
from loralab.store.run_directory import RunDirectory, refuse_paused, status

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["load_run"]


def load_run(directory: str | Path) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """The trained model, in fp32 on the CPU and in eval mode, and its tokenizer.

    directory: a run's (outputs/runs/...), or one that `loralab export` wrote with record.json. `model(**batch).logits`
    equal the logits in predictions.parquet at `train.keep`, up to the run's precision. The training data is not needed.
    Raises UserError for a run that did not end in success, and where its backbone has changed or is gone.
    """
    run = RunDirectory(Path(directory))
    refuse_paused(run)
    record = run.finished()
    if record is None or record["status"] != "success":
        raise UserError(f"{directory}: no finished run to load ({status(run)}); give a directory with its record.json")
    planned = replan(run, record)
    backbone = trained_backbone(planned, run, record)
    return backbone.model.eval(), backbone.tokenizer
