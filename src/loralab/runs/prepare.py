"""Plan -> Prepared: builds and checks everything that a run trains with; writes nothing and takes no step."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import nn

from loralab import device
from loralab.backbones.load import Backbone
from loralab.backbones.positions import longest_answer
from loralab.backbones.recompute import recompute_layers
from loralab.config.schema import Config
from loralab.errors import UserError
from loralab.methods.lora import linear_factors
from loralab.methods.prompts import virtual_tokens
from loralab.runs.build import adapted_backbone, objective, read_task
from loralab.runs.console import Console
from loralab.runs.data_lines import cut_warning, few_rows_warning, labels_line
from loralab.runs.objective import Objective
from loralab.runs.plan import Plan, drops_out
from loralab.runs.rates import has_factors, rates_line, steps_of
from loralab.training import optim
from loralab.training.batches import Order, by_length
from loralab.training.checkpoint import Trained
from loralab.training.distributed import Ranks
from loralab.training.gradient import CPU_PARTS
from loralab.training.loop import Probing, Progress
from loralab.training.probes import ROWS_AT_ONCE, probing
from loralab.training.sharding import shard_frozen

__all__ = ["Prepared", "groups_of", "parts_of", "prepare", "workers_of"]

Tell = Callable[[Progress, dict[str, float | None]], None]


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to train in this process.

    groups: the resolved parameter groups; probe: callback for the values -> context manager around an update.
    """

    planned: Plan
    backbone: Backbone
    objective: Objective
    trained: Trained
    groups: list[dict[str, Any]]
    order: Order
    steps: int
    probe: Callable[[Tell], Probing]
    threads: int
    workers: int
    parts: int
    seconds: float  # of preparation

    @property
    def model(self) -> nn.Module:
        return cast(nn.Module, self.backbone.model)

    @property
    def ranks(self) -> Ranks:
        return self.trained.ranks


def prepare(planned: Plan, console: Console, ranks: Ranks) -> Prepared:
    """Loads weights and texts, attaches the method, and assigns each trained weight its learning rate.

    Raises UserError for settings that the backbone or the task does not support. Every rank calls it, within `agreed`.
    """
    began = time.monotonic()
    config = planned.config
    console.loading(config.model.name, config.task.called)
    threads = device.prepare(planned.device, threads=config.train.threads)
    with ranks.in_turn():
        task = read_task(planned)
    backbone = adapted_backbone(planned, task)
    if config.model.gradient_checkpointing:
        recompute_layers(backbone.model, name=config.model.name)
    if backbone.unfit is not None:
        raise UserError(backbone.unfit)
    for note in backbone.notes:
        console.warn(note)
    _refuse_too_long(config, backbone, generates=task.kind == "generation")
    with ranks.in_turn():
        its_objective = objective(planned, task, backbone)
    workers, parts = workers_of(planned, threads, ranks), parts_of(planned, ranks)
    if planned.device.type == "cpu" and ranks.count == 1 and threads > min(workers, parts):
        console.warn(_idle_threads(config, workers, parts, threads))
    groups = groups_of(config, backbone)
    order = Order(
        its_objective.lengths("train"),
        batch_size=config.train.batch_size,
        seed=config.data_seed,
        bucketing=config.train.bucketing,
    )
    steps = _steps(config, order)
    rates = rates_line(config, width=planned.source.width, steps=steps)
    labels = labels_line(task)
    where = f"{planned.device.type}, {config.train.precision}"
    console.read(its_objective.rows(), where if labels is None else f"{labels}; {where}", rates)
    whole = its_objective.whole("train")
    for line in (cut_warning(whole, config.train.max_length), few_rows_warning(its_objective.rows())):
        if line is not None:
            console.warn(line)
    if config.train.fsdp:
        ranks = _sharded(planned, backbone, ranks)
    return Prepared(
        planned=planned,
        backbone=backbone,
        objective=its_objective,
        trained=_trained(planned, backbone, groups, ranks),
        groups=optim.group_table(groups),
        order=order,
        steps=steps,
        probe=_probe(config, backbone, its_objective, ranks),
        threads=threads,
        workers=workers,
        parts=parts,
        seconds=time.monotonic() - began,
    )


def _refuse_too_long(config: Config, backbone: Backbone, *, generates: bool) -> None:
    """Raises UserError where texts, virtual tokens and answers may exceed the backbone's positions."""
    longest = backbone.tokenizer.model_max_length
    virtual = virtual_tokens(cast(nn.Module, backbone.model))
    if virtual is not None:  # virtual tokens take positions too
        longest -= virtual.tokens
    if config.train.max_length > longest:
        beside = "" if virtual is None else f" beside the virtual ones (prompt.tokens={virtual.tokens})"
        raise UserError(
            f"train.max_length: got {config.train.max_length}; {config.model.name} takes at most {longest} tokens"
            f"{beside}"
        )
    answer = longest_answer(backbone.model) if backbone.seq2seq else None
    if answer is not None and config.generate.max_new_tokens > answer:
        raise UserError(
            f"generate.max_new_tokens: got {config.generate.max_new_tokens}; the decoder of {config.model.name} takes "
            f"at most {answer} tokens"
        )
    decodes = generates and not backbone.seq2seq  # a decoder's answer takes positions after the text
    if decodes and config.train.max_length + config.generate.max_new_tokens > longest:
        raise UserError(
            f"train.max_length + generate.max_new_tokens: got {config.train.max_length} + "
            f"{config.generate.max_new_tokens}; {config.model.name} takes at most {longest} tokens, text and "
            "answer together; lower one of the two"
        )


def groups_of(config: Config, backbone: Backbone) -> list[dict[str, Any]]:
    """The parameter groups, with LoRA+'s lr_B = λ lr_A; without A and B, λ is 1 (lr_B would apply to biases)."""
    has_lora = has_factors(config)
    return optim.param_groups(
        cast(nn.Module, backbone.model),
        head=backbone.head,
        lr=cast(float, config.optim.lr),
        ratio=config.lora.ratio if has_lora else 1.0,
        head_lr=config.optim.head_lr,
        head_bias_lr=cast(float, config.optim.head_lr) * config.model.widen,  # rates of matrices alone fall with it
        embedding_lr=config.optim.embedding_lr,
        weight_decay=config.optim.weight_decay,
        layout=cast(Literal["roles", "reference"], config.optim.groups if has_lora else "roles"),
    )


def _trained(planned: Plan, backbone: Backbone, groups: list[dict[str, Any]], ranks: Ranks) -> Trained:
    config = planned.config
    return Trained(
        weights={name: p for name, p in backbone.model.named_parameters() if p.requires_grad},
        optimizer=optim.optimizer(config.optim.name, groups, betas=config.optim.betas, eps=config.optim.eps),
        scaler=torch.amp.GradScaler(planned.device.type, enabled=config.train.precision == "fp16"),
        ranks=ranks,
    )


def _steps(config: Config, order: Order) -> int:
    """The number of steps of the run; raises UserError where the warm-up is not shorter."""
    steps = steps_of(config.train.epochs, config.train.steps, per_epoch=order.per_epoch)
    if config.optim.warmup >= max(1, steps):  # no step needs no warm-up
        raise UserError(f"optim.warmup: got {config.optim.warmup:g} steps, and the run has {steps}; warm up for fewer")
    return steps


def _probe(config: Config, backbone: Backbone, task: Objective, ranks: Ranks) -> Callable[[Tell], Probing]:
    """The probe of every `probe.every`-th update, on rank 0; raises UserError where no linear map is adapted."""
    every = config.probe.every if ranks.leads else None
    model = cast(nn.Module, backbone.model)
    maps = linear_factors(model)
    if every is not None and not maps:
        raise UserError(
            f"probe.every: got {every}, and no linear map has an adapter; name one in lora.targets, or set it to null"
        )
    count = 0 if every is None else config.probe.rows
    rows = by_length(task.lengths("validation")[:count], batch_size=ROWS_AT_ONCE)
    batches = [task.batch("validation", at) for at in rows]
    return lambda tell: probing(model, maps, batches, every=every, tell=tell)


def _sharded(planned: Plan, backbone: Backbone, ranks: Ranks) -> Ranks:
    """The ranks with frozen weights in shards; UserError where there is one, or where parts are called alone."""
    if ranks.count == 1:
        raise UserError(
            "train.fsdp: got true, and one process trains; start one for each GPU with torchrun --nproc-per-node=gpu, "
            "or set it to false"
        )
    if backbone.seq2seq:
        raise UserError(
            f"train.fsdp: got true, and {planned.config.model.name} is an encoder-decoder, whose encoder is called "
            "alone where it generates; set it to false"
        )
    return shard_frozen(backbone.model, planned.device, ranks)


def workers_of(planned: Plan, threads: int, ranks: Ranks) -> int:
    """One worker per CPU thread; one in all on a GPU, under torchrun, and with dropout (threads share a generator)."""
    return 1 if drops_out(planned.config) or ranks.count > 1 or planned.device.type != "cpu" else threads


def parts_of(planned: Plan, ranks: Ranks) -> int:
    """The number of micro-batches in which each rank computes its share of a batch."""
    config = planned.config.train
    if config.micro_batch_size is not None:
        return math.ceil(config.batch_size / ranks.count / config.micro_batch_size)
    return CPU_PARTS if planned.device.type == "cpu" and ranks.count == 1 else 1


def _idle_threads(config: Config, workers: int, parts: int, threads: int) -> str:
    """Why a step uses fewer than `threads` threads, and the fix."""
    if workers == 1:
        return "a CPU run with dropout uses one thread: its threads would share a random generator"
    size = max(1, config.train.batch_size // threads)
    return (
        f"a step uses {parts} of {threads} threads, one per micro-batch; train.micro_batch_size={size} uses more, and "
        "gives other last bits"
    )
