"""Plan -> the task's texts, and the backbone with the method in place: what training and export start from."""

import functools
import json
from dataclasses import asdict
from typing import Any, cast

import torch

from loralab import tasks
from loralab.backbones.load import Backbone, load
from loralab.methods import full, lora
from loralab.plan import Plan
from loralab.training import device

__all__ = ["adapted_backbone", "read_task", "token_ids"]

# A sweep goes back and forth between two tasks at most, for its longest runs come first.
KEPT = 2


def adapted_backbone(planned: Plan, task: tasks.RawTask) -> Backbone:
    """The backbone in its precision, on its device, with the method's modules in place as they are before training."""
    config = planned.config
    dtype = device.DTYPES[config.train.precision]
    backbone = load(
        planned.source,
        labels=len(task.labels) if task.labels is not None else 1,
        regression=task.kind == "regression",
        dropout=config.model.dropout,
        attention=cast(Any, config.model.attention),
        dtype=torch.float32 if config.method.name == "full" else dtype,  # a trained weight is in fp32
        device=planned.device,
        seed=config.init_seed,
        class_names=task.labels or (),
    )
    if config.method.name == "lora":
        settings = asdict(config.lora)
        del settings["ratio"]  # LoRA+ is in the optimizer's groups
        lora.attach(backbone.model, backbone.maps, head=backbone.head, seed=config.init_seed, **settings)
    elif config.method.name == "full":
        full.attach(backbone.model, head=backbone.head, device=planned.device, dtype=dtype)
    backbone.model.to(planned.device)
    return backbone


def read_task(planned: Plan) -> tasks.RawTask:
    """The task's texts and labels, with its primary metric chosen; run after run of one process reads them once."""
    settings = asdict(planned.config.task)
    metric = settings.pop("metric")
    return tasks.choose(_read(json.dumps(settings), json.dumps(planned.identity["task"]["data"])), metric)


@functools.lru_cache(maxsize=KEPT)
def _read(settings: str, data: str) -> tasks.RawTask:  # noqa: ARG001  # `data` tells two contents of one path apart
    return tasks.read(**json.loads(settings))


def token_ids(planned: Plan, task: tasks.RawTask, tokenizer: Any) -> dict[str, tasks.Split]:
    """The task's splits as the backbone reads them; run after run of one process tokenises, or loads, them once."""
    key = json.dumps([planned.identity["task"], planned.source.identity, planned.config.train.max_length])
    if key not in _token_ids:
        while len(_token_ids) >= KEPT:
            del _token_ids[next(iter(_token_ids))]
        _token_ids[key] = tasks.tokenise(
            task,
            tokenizer,
            tokenizer_identity=planned.source.identity,
            max_length=planned.config.train.max_length,
            cache=planned.cache,
        )
    return _token_ids[key]


_token_ids: dict[str, dict[str, tasks.Split]] = {}
