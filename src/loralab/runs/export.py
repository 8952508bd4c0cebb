"""`loralab export`: a finished run -> an adapter in PEFT's format, or a merged transformers checkpoint."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from loralab.backbones.dequantise import dequantise
from loralab.backbones.families import kind_of
from loralab.backbones.quantise import dequantise_maps
from loralab.backbones.tokenizer import load_tokenizer
from loralab.config.command import command
from loralab.config.stored import stored_config
from loralab.device import DTYPES
from loralab.errors import UserError
from loralab.files import atomic_directory, write_json, write_text
from loralab.methods.formats.kept_config import save_tokenizer
from loralab.methods.formats.peft_config import CONFIG
from loralab.methods.formats.plain import export_merged
from loralab.methods.registry import CATALOGUE
from loralab.runs.build import bare_backbone, trained_backbone
from loralab.runs.console import scores_table
from loralab.runs.outputs import Outputs, of_run
from loralab.runs.plan import Plan, replan
from loralab.runs.trained_files import regular, trained_files
from loralab.store.record import Record, kept
from loralab.store.run_directory import RunDirectory, refuse_paused, status

__all__ = ["export"]

BASE = "base"
"""The folder of a widened backbone in the export of its adapter."""

LABELS = "id2label.json"
"""The names of the classes by their numbers, beside an adapter."""

LOAD_ADAPTER = """\
from peft import PeftModel
from transformers import {auto}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({directory})
backbone = {auto}.from_pretrained({backbone})
model = PeftModel.from_pretrained(backbone, {directory})
"""

LOAD_OWN = """\
from loralab import load_run  # no other library reads this method's adapters

run = load_run({directory})
model, tokenizer = run.model, run.tokenizer
"""

LOAD_MERGED = """\
from transformers import {auto}, AutoTokenizer

model = {auto}.from_pretrained({directory})
tokenizer = AutoTokenizer.from_pretrained({directory})
"""


def export(run: RunDirectory, directory: Path, *, merged: bool, dtype: str) -> None:
    """Writes the weights of the last step to `directory`, atomically: adapter or checkpoint, tokenizer, README.md.

    merged: write a checkpoint with the adapter merged, rather than the adapter; required for a fully fine-tuned model.
    dtype (fp32, bf16, fp16): of the checkpoint; merging is in fp32, into the numbers that quantised weights stand for.
    An adapter that PEFT has no format for comes with the files that `loralab.load_run` needs, and PEFT's adapter of a
    widened backbone with that backbone. The training data is not needed. Raises UserError for a run without an adapter,
    an adapter that cannot be merged, a directory that is not empty, a backbone that has changed or is gone, and files
    of the run that are links.
    """
    refuse_paused(run)
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
    files = trained_files(run, method)
    outputs = of_run(planned, record, run.path / method.folder)
    with atomic_directory(directory) as temporary:
        inside = temporary / "checkpoint"  # the writers below create it
        if merged and method.merge is not None:
            backbone = trained_backbone(planned, run, record)
            method.merge(backbone, planned.config)
            dequantise_maps(backbone.model)
            export_merged(
                backbone.model, backbone.tokenizer, inside, dtype=DTYPES[dtype], base=planned.source
            )  # fmt: skip
        else:
            _copy(files, inside if method.peft else inside / "adapter")
            if not method.peft:
                _copy({name: regular(run, name) for name in ("config.yaml", "record.json")}, inside)
            dequantise(planned.source)
            save_tokenizer(load_tokenizer(planned.source), inside, planned.source)
            if outputs.labels is not None:  # PEFT's files have no place for them, and a config.json would be a model's
                write_json(inside / LABELS, dict(enumerate(outputs.labels)))
            if planned.source.widen > 1 and method.peft:
                _add_base(planned, outputs, inside, directory / BASE, dtype)
        write_text(inside / "README.md", _readme(run, record, directory, planned, outputs, merged=merged))
        for path in inside.iterdir():
            path.rename(temporary / path.name)
        inside.rmdir()


def _add_base(planned: Plan, outputs: Outputs, inside: Path, place: Path, dtype: str) -> None:
    """Writes the widened backbone, which no one else has, beside its adapter, which then names its `place`."""
    bare = bare_backbone(planned, outputs)
    export_merged(bare.model, bare.tokenizer, inside / BASE, dtype=DTYPES[dtype], base=planned.source)
    adapter = json.loads((inside / CONFIG).read_text())
    write_json(inside / CONFIG, adapter | {"base_model_name_or_path": str(place.absolute())})


def _copy(files: Mapping[str, Path], directory: Path) -> None:
    """Copies the files to their names in `directory`."""
    for name, file in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, directory / name)


def _readme(
    run: RunDirectory, record: Record, directory: Path, planned: Plan, outputs: Outputs, *, merged: bool
) -> str:
    source, config = planned.source, stored_config(run.path / "config.yaml")
    wide = "" if source.widen == 1 else f" at {source.widen} times its width"
    peft = CATALOGUE[config.method.name].peft
    code = LOAD_MERGED if merged else LOAD_ADAPTER if peft else LOAD_OWN
    if source.origin == "random" and not wide and peft and not merged:  # model=tiny
        code = "# The backbone has random weights, which only loralab makes; an export with --merged includes them.\n"
    if outputs.kind == "generation":
        seq2seq = kind_of(planned.source.family) == "encoder_decoder"
        auto, head = "AutoModelForSeq2SeqLM" if seq2seq else "AutoModelForCausalLM", ""
    else:
        auto = "AutoModelForSequenceClassification"
        names = "num_labels=1" if outputs.labels is None else f"id2label={dict(enumerate(outputs.labels))!r}"
        head = f",\n    {names},\n    pad_token_id=tokenizer.pad_token_id,\n"
    if wide:
        named = _quoted(str(directory / BASE))
    elif source.gguf is not None:
        named = f"{_quoted(str(source.gguf.parent))}, gguf_file={_quoted(source.gguf.name)}"
    else:
        named = _quoted(source.origin)
    backbone = f"\n    {named}{head}" if head else named
    loading = code.format(auto=auto, backbone=backbone, directory=_quoted(str(directory)))
    note = "" if config.model.quantize is None else _of_codes(config.model.quantize, merged=merged)
    scores = "\n".join(scores_table(record["metrics"]))
    at, step = kept(record)
    return (
        f"# {run.path.name}\n\n{config.task.called} on {source.origin}{wide}, trained with loralab:\n\n"
        f"    {command(config)}\n\n"
        f"The weights are those of the {at} step ({step}).{note}\n\n"
        f"```\n{scores}\n```\n\n```python\n{loading}```\n"
    )


def _of_codes(kind: str, *, merged: bool) -> str:
    """A line on the frozen weights that a run had in 4 or 8 bits (model.quantize)."""
    if merged:
        return f" The frozen weights are those of its training, which {kind} stands for, as plain numbers."
    return f" It was trained beside frozen weights in {kind}; beside the exact ones its scores differ a little."


def _quoted(text: str) -> str:
    """The text in Python's quotes, double ones where nothing needs an escape."""
    return f'"{text}"' if text.isprintable() and not {'"', "\\"} & set(text) else repr(text)
