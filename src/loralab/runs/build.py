"""Plan -> the task's texts, the backbone with the method attached, and the objective."""

import json
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch

from loralab import device, tasks
from loralab.backbones.load import Backbone, load, load_generator
from loralab.backbones.reading import encoding
from loralab.backbones.vocabulary import check_ids, check_types
from loralab.config.schema import Config
from loralab.errors import UserError
from loralab.methods.registry import CATALOGUE
from loralab.runs.effect import check_effect
from loralab.runs.generation import TextObjective
from loralab.runs.objective import LabelObjective, Objective, balanced
from loralab.runs.outputs import HasOutputs, of_run
from loralab.runs.plan import Plan, task_settings
from loralab.runs.trained_files import trained_files
from loralab.store.record import Record
from loralab.store.run_directory import RunDirectory
from loralab.training.distributed import launched

__all__ = [
    "adapted_backbone",
    "backbone_dtype",
    "bare_backbone",
    "objective",
    "read_task",
    "text_objective",
    "trained_backbone",
]

# Values kept per process, as of tasks.
KEPT = 2


def backbone_dtype(config: Config) -> torch.dtype:
    """The run's precision; fp32 where the method trains the backbone's own weights."""
    return torch.float32 if CATALOGUE[config.method.name].whole else device.DTYPES[config.train.precision]


def bare_backbone(planned: Plan, task: HasOutputs) -> Backbone:
    """The backbone in its precision, on its device, without a method."""
    config = planned.config
    dtype = backbone_dtype(config)
    if task.kind == "generation":
        return load_generator(
            planned.source,
            dropout=config.model.dropout,
            attention=config.model.attention,
            dtype=dtype,
            device=planned.device,
            place=_place(planned),
            quantize=config.model.quantize,
        )
    return load(
        planned.source,
        labels=len(task.labels) if task.labels is not None else 1,
        regression=task.kind == "regression",
        dropout=config.model.dropout,
        attention=config.model.attention,
        dtype=dtype,
        device=planned.device,
        place=_place(planned),
        seed=config.init_seed,
        class_names=task.labels or (),
        quantize=config.model.quantize,
    )


def adapted_backbone(planned: Plan, task: HasOutputs) -> Backbone:
    """The backbone in its precision, on its device, with the method's modules attached, before any training."""
    config = planned.config
    method = CATALOGUE[config.method.name]
    backbone = bare_backbone(planned, task)
    method.attach(backbone, config)
    if not any(parameter.requires_grad for parameter in backbone.model.parameters()):
        raise UserError(
            f"method.name: {config.method.name} trains nothing here: a backbone that generates text has no new head; "
            "method=lora adapts its maps"
        )
    backbone.model.to(_place(planned))
    if not method.whole:
        backbone.notes += check_effect(backbone, config.method.name)
    return backbone


def _place(planned: Plan) -> torch.device:
    """Where the weights are put: on the device, or on the CPU where `train.fsdp` brings each process its shard."""
    return torch.device("cpu") if planned.config.train.fsdp and launched() > 1 else planned.device


def trained_backbone(planned: Plan, run: RunDirectory, record: Record) -> Backbone:
    """The backbone with a run's saved weights, of the last or the best step.

    planned: by `replan`, so that no data is needed. Raises UserError where the files of the weights are missing,
    damaged, or links.
    """
    method = CATALOGUE[planned.config.method.name]
    trained_files(run, method)
    folder = run.path / method.folder
    backbone = adapted_backbone(planned, of_run(planned, record, folder))
    method.load(backbone, folder)
    return backbone


def read_task(planned: Plan) -> tasks.RawTask[Any]:
    """The task's texts and labels, with its primary metric first; cached for later runs of the process."""
    task = planned.config.task
    raw = tasks.read_once(task_settings(task), json.dumps(planned.identity["task"]["data"]))
    if task.class_weights is not None and raw.labels is None:
        raise UserError(
            f"task.class_weights: got {task.class_weights}; {raw.name} is {raw.kind}, and classes alone have weights; "
            "leave it null"
        )
    return tasks.choose(raw, task.metric)


def objective(planned: Plan, task: tasks.RawTask[Any], backbone: Backbone) -> Objective:
    """The task's objective for this backbone; token ids are cached for later runs of the process."""
    config, tokenizer, tokens_of = planned.config, backbone.tokenizer, planned.source.identity
    key = {"task": planned.identity["task"], "tokenizer": tokens_of, "length": config.train.max_length}
    if task.kind != "generation":
        with encoding(planned.source):
            splits = _token_ids.get(
                key,
                lambda: tasks.tokenise(
                    task, tokenizer,
                    max_length=config.train.max_length, tokenizer_identity=tokens_of, cache=planned.cache,
                ),
            )  # fmt: skip
        check_ids(backbone, (split.input_ids for split in splits.values()))
        check_types(backbone, (s.token_type_ids for s in splits.values() if s.token_type_ids is not None))
        pad_id = cast(int, backbone.model.config.pad_token_id)
        weights = _class_weights(planned, task)
        return LabelObjective(task, splits, pad_id=pad_id, device=planned.device, class_weights=weights)
    with encoding(planned.source):
        pairs = _token_ids.get(
            key | {"seq2seq": backbone.seq2seq, "separator": config.generate.separator},
            lambda: tasks.tokenise_pairs(
                task, tokenizer,
                seq2seq=backbone.seq2seq, separator=config.generate.separator,
                max_length=config.train.max_length, tokenizer_identity=tokens_of, cache=planned.cache,
            ),
        )  # fmt: skip
    check_ids(backbone, (ids for split in pairs.values() for ids in (split.context_ids, split.target_ids)))
    return text_objective(planned, task, pairs, backbone)


def text_objective(
    planned: Plan, task: tasks.RawTask[Any], pairs: Mapping[str, tasks.PairSplit], backbone: Backbone
) -> TextObjective:
    """The objective of tokenised pairs, which decodes as the config says."""
    config = planned.config
    # The decoder's first token in an encoder-decoder; a decoder-only model continues its context and needs none.
    start = (
        getattr(backbone.model.config, "decoder_start_token_id", None)
        if backbone.seq2seq
        else backbone.tokenizer.pad_token_id
    )
    if start is None:
        raise UserError(
            f"{planned.source.key}: config.json of {planned.source.origin} has no decoder_start_token_id, with which "
            "its decoder begins; add it"
        )
    return TextObjective(
        task, pairs, backbone.tokenizer,
        seq2seq=backbone.seq2seq, at_targets=backbone.at_targets, start_id=cast(int, start),
        beams=config.generate.beams, length_penalty=config.generate.length_penalty,
        max_new_tokens=config.generate.max_new_tokens, device=planned.device,
    )  # fmt: skip


def _class_weights(planned: Plan, task: tasks.RawTask[Any]) -> torch.Tensor | None:
    """The weights of `task.class_weights`; none where nothing is trained."""
    if planned.config.task.class_weights is None or task.labels is None or "train" not in task.splits:
        return None
    return balanced(task.splits["train"].labels, len(task.labels))


class _Latest:
    """A cache of the last `KEPT` values made; keys are JSON values."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def get(self, key: dict[str, Any], make: Callable[[], Any]) -> Any:
        text = json.dumps(key)
        if text not in self._values:
            while len(self._values) >= KEPT:
                del self._values[next(iter(self._values))]
            self._values[text] = make()
        return self._values[text]


_token_ids = _Latest()
