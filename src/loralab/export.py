"""`loralab export`: a finished run -> an adapter in PEFT's format, or a plain merged checkpoint, for others to load."""

import shutil
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from loralab.backbones.load import load_tokenizer
from loralab.build import adapted_backbone, read_task
from loralab.console import scores_table
from loralab.errors import UserError
from loralab.files import atomic_directory, write_text
from loralab.interchange import load_adapter
from loralab.listing import command, status
from loralab.merged import export_merged, load_model
from loralab.replan import replan
from loralab.store.runs import RunDirectory
from loralab.training.device import DTYPES

__all__ = ["export"]

LOAD_ADAPTER = """\
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{directory}")
backbone = AutoModelForSequenceClassification.from_pretrained(
    "{base}", num_labels={labels}, pad_token_id=tokenizer.pad_token_id
)
model = PeftModel.from_pretrained(backbone, "{directory}")
"""

LOAD_MERGED = """\
from transformers import AutoModelForSequenceClassification, AutoTokenizer

model = AutoModelForSequenceClassification.from_pretrained("{directory}")
tokenizer = AutoTokenizer.from_pretrained("{directory}")
"""


def export(run: RunDirectory, directory: Path, *, merged: bool, dtype: str) -> None:
    """Writes the run's last step to `directory`, which appears whole: adapter or checkpoint, tokenizer, README.md.

    dtype (fp32, bf16, fp16) is that of a checkpoint; the merging itself is in fp32, and a fully fine-tuned model has
    nothing to merge. Raises UserError for a run without an adapter (such a model has one only as a checkpoint), for a
    directory that is not empty, and where the backbone is no longer what it was.
    """
    record = run.finished()
    if record is not None and run.model.is_dir() and not merged:
        raise UserError(f"{run.path.name}: a fully fine-tuned run has no adapter; add --merged")
    if record is None or not (run.adapter.is_dir() or run.model.is_dir()):
        raise UserError(f"{run.path.name}: has no adapter to export ({status(run)}); a run that ends in success has")
    planned = replan(run, record)
    with atomic_directory(directory) as temporary:
        inside = temporary / "checkpoint"  # the writers below make their own directory
        if run.model.is_dir():
            tokenizer = load_tokenizer(planned.source)
            export_merged(load_model(run.model), tokenizer, inside, dtype=DTYPES[dtype])
        elif merged:
            backbone = adapted_backbone(planned, read_task(planned))
            load_adapter(backbone.model, run.adapter)
            export_merged(backbone.model, backbone.tokenizer, inside, dtype=DTYPES[dtype])
        else:
            shutil.copytree(run.adapter, inside)
            load_tokenizer(planned.source).save_pretrained(inside)
        write_text(inside / "README.md", _readme(run, record, directory, base=planned.source.origin, merged=merged))
        for path in inside.iterdir():
            path.rename(temporary / path.name)
        inside.rmdir()


def _readme(run: RunDirectory, record: dict[str, Any], directory: Path, *, base: str, merged: bool) -> str:
    config = OmegaConf.load(run.path / "config.yaml")
    code = LOAD_MERGED if merged else LOAD_ADAPTER
    if base == "random" and not merged:  # model=tiny
        code = "# The backbone is random weights that loralab alone makes; an export with --merged brings them along.\n"
    loading = code.format(base=base, directory=directory, labels=_outputs(run))
    scores = "\n".join(scores_table(record["metrics"]))
    task = record["config"]["task"]["name"]
    return (
        f"# {run.path.name}\n\n{task} on {base}, trained with loralab:\n\n    {command(config)}\n\n"
        f"The weights are those of the last step ({record['steps']}).\n\n"
        f"```\n{scores}\n```\n\n```python\n{loading}```\n"
    )


def _outputs(run: RunDirectory) -> int:
    """The number of logits of the run's model."""
    from pyarrow import parquet

    return len(parquet.read_table(run.predictions, columns=["logits"]).column("logits")[0])
