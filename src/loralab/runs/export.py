"""`loralab export`: a finished run -> an adapter in PEFT's format, or a merged transformers checkpoint."""

import shutil
from pathlib import Path

from omegaconf import OmegaConf

from loralab.backbones.families import kind_of
from loralab.backbones.source import Source
from loralab.backbones.tokenizer import load_tokenizer
from loralab.config.command import command
from loralab.device import DTYPES
from loralab.errors import UserError
from loralab.files import atomic_directory, write_text
from loralab.methods.formats.plain import export_merged
from loralab.methods.registry import CATALOGUE
from loralab.runs.build import trained_backbone
from loralab.runs.console import scores_table
from loralab.runs.plan import replan
from loralab.store.record import Record
from loralab.store.run_directory import RunDirectory, status

__all__ = ["export"]

LOAD_ADAPTER = """\
from peft import PeftModel
from transformers import {auto}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{directory}")
backbone = {auto}.from_pretrained({backbone})
model = PeftModel.from_pretrained(backbone, "{directory}")
"""

LOAD_OWN = """\
from loralab import load_run  # no other library reads this method's adapters

model, tokenizer = load_run("{directory}")
"""

LOAD_MERGED = """\
from transformers import {auto}, AutoTokenizer

model = {auto}.from_pretrained("{directory}")
tokenizer = AutoTokenizer.from_pretrained("{directory}")
"""


def export(run: RunDirectory, directory: Path, *, merged: bool, dtype: str) -> None:
    """Writes the weights of the last step to `directory`, atomically: adapter or checkpoint, tokenizer, README.md.

    merged: write a checkpoint with the adapter merged, rather than the adapter; required for a fully fine-tuned model.
    dtype (fp32, bf16, fp16): of the checkpoint; merging is in fp32. An adapter that PEFT has no format for comes with
    the files that `loralab.load_run` needs. Raises UserError for a run without an adapter, an adapter that cannot be
    merged, a directory that is not empty, and a backbone that has changed.
    """
    record = run.finished()
    if record is not None and run.model.is_dir() and not merged:
        raise UserError(f"{run.path.name}: a fully fine-tuned run has no adapter; add --merged")
    if record is None or not (run.adapter.is_dir() or run.model.is_dir()):
        raise UserError(f"{run.path.name}: has no adapter to export ({status(run)}); export a finished run")
    planned = replan(run, record)
    method = CATALOGUE[planned.config.method.name]
    if merged and method.merge is None:
        raise UserError(
            f"{run.path.name}: {planned.config.method.name} cannot be merged into the weights; "
            "export it without --merged"
        )
    with atomic_directory(directory) as temporary:
        inside = temporary / "checkpoint"  # the writers below create it
        if merged and method.merge is not None:
            backbone = trained_backbone(planned, run.path / method.folder)
            method.merge(backbone, planned.config)
            export_merged(backbone.model, backbone.tokenizer, inside, dtype=DTYPES[dtype])
        elif method.peft:
            shutil.copytree(run.adapter, inside)
            load_tokenizer(planned.source).save_pretrained(inside)
        else:
            shutil.copytree(run.adapter, inside / "adapter")
            for name in ("config.yaml", "record.json"):
                shutil.copy(run.path / name, inside)
            load_tokenizer(planned.source).save_pretrained(inside)
        write_text(inside / "README.md", _readme(run, record, directory, planned.source, merged=merged))
        for path in inside.iterdir():
            path.rename(temporary / path.name)
        inside.rmdir()


def _readme(run: RunDirectory, record: Record, directory: Path, source: Source, *, merged: bool) -> str:
    config = OmegaConf.load(run.path / "config.yaml")
    base = source.origin
    peft = CATALOGUE[record["config"]["method"]["name"]].peft
    code = LOAD_MERGED if merged else LOAD_ADAPTER if peft else LOAD_OWN
    if base == "random" and peft and not merged:  # model=tiny
        code = "# The backbone has random weights, which only loralab makes; an export with --merged includes them.\n"
    outputs = _outputs(run)
    backbone = f'"{base}"'
    if outputs is not None:
        auto = "AutoModelForSequenceClassification"
        backbone = f"\n    {backbone}, num_labels={outputs}, pad_token_id=tokenizer.pad_token_id\n"
    else:
        seq2seq = kind_of(source.family) == "encoder_decoder"
        auto = "AutoModelForSeq2SeqLM" if seq2seq else "AutoModelForCausalLM"
    loading = code.format(auto=auto, backbone=backbone, directory=directory)
    scores = "\n".join(scores_table(record["metrics"]))
    task = record["config"]["task"]["name"]
    return (
        f"# {run.path.name}\n\n{task} on {base}, trained with loralab:\n\n    {command(config)}\n\n"
        f"The weights are those of the last step ({record['steps']}).\n\n"
        f"```\n{scores}\n```\n\n```python\n{loading}```\n"
    )


def _outputs(run: RunDirectory) -> int | None:
    """The number of logits of the run's model; None where it generates text."""
    from pyarrow import parquet

    if "logits" not in parquet.read_schema(run.predictions).names:
        return None
    return len(parquet.read_table(run.predictions, columns=["logits"]).column("logits")[0])
