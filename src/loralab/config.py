"""The schema of a run's configuration: types and ranges. The values, every default among them, are in conf/.

Hydra merges conf/*.yaml and the command line into these classes, which rejects unknown keys and wrong types;
`Config.check` rejects values out of range. Nothing below `run.py` sees these classes.
"""

import difflib
import functools
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, get_type_hints

from omegaconf import MISSING, DictConfig, OmegaConf

from loralab.errors import UserError

__all__ = ["Config", "from_hydra", "keys", "no_such_key", "one_of", "refuse_unknown", "type_of", "within"]


@dataclass
class ModelConfig:
    """The backbone: where its weights come from, and how it is run."""

    name: str = MISSING
    package: str | None = MISSING
    hub: str | None = MISSING
    revision: str | None = MISSING
    path: str | None = MISSING
    default_lr: float = MISSING
    dropout: float = MISSING
    attention: str = MISSING

    def check(self) -> None:
        if self.path == "":
            raise UserError("model.path: got an empty name; it is a checkpoint's folder, or null")
        within("model.default_lr", self.default_lr, above=0)
        within("model.dropout", self.dropout, at_least=0, below=1)
        one_of("model.attention", self.attention, ("auto", "eager", "sdpa"))


@dataclass
class FilesConfig:
    """The user's own data files (task=local)."""

    train: str | None = MISSING
    validation: str | None = MISSING
    test: str | None = MISSING


@dataclass
class TaskConfig:
    """The data: its files or its hub revision, columns, kind and splits."""

    name: str = MISSING
    files: FilesConfig = field(default_factory=FilesConfig)
    text: list[str] = MISSING
    label: str | None = MISSING
    kind: str | None = MISSING
    revision: str | None = MISSING
    validation_share: float | None = MISSING
    test_share: float | None = MISSING
    split_seed: int | None = MISSING
    train_rows: int | None = MISSING
    eval_rows: int | None = None  # what older runs, which do not name it, have
    metric: str | None = MISSING

    def check(self) -> None:
        if self.kind is not None:
            one_of("task.kind", self.kind, ("classification", "regression"))
        shares = {"validation_share": self.validation_share, "test_share": self.test_share}
        given = {name: share for name, share in shares.items() if share is not None}
        for name, share in given.items():
            within(f"task.{name}", share, above=0, below=1)
        if sum(given.values()) >= 1:
            raise UserError(
                f"task.validation_share, task.test_share: got {self.validation_share} and {self.test_share}; "
                "together they must be below 1, to leave rows to train on"
            )
        if self.split_seed is not None:
            within("task.split_seed", self.split_seed, at_least=0)
        if self.train_rows is not None:
            within("task.train_rows", self.train_rows, at_least=1)
        if self.eval_rows is not None:
            within("task.eval_rows", self.eval_rows, at_least=1)


@dataclass
class MethodConfig:
    """How the backbone is adapted: lora, head (the head alone), or full (every weight is trained)."""

    name: str = MISSING

    def check(self) -> None:
        one_of("method.name", self.name, ("lora", "head", "full"))


@dataclass
class LoraConfig:
    """The adapter, and LoRA+'s ratio."""

    rank: int = MISSING
    alpha: float = MISSING
    ratio: float = MISSING
    targets: list[str] = MISSING
    init: str = MISSING
    init_dist: str = MISSING
    scaling: str = MISSING
    dropout: float = MISSING
    bias: str = MISSING
    rank_pattern: dict[str, int] = MISSING  # open to new keys, see loralab.entry

    def check(self) -> None:
        within("lora.rank", self.rank, at_least=1)
        within("lora.alpha", self.alpha, above=0)
        within("lora.ratio", self.ratio, above=0)
        if not self.targets:
            raise UserError("lora.targets: got an empty list; name at least one role (q, k, v, o, mlp, all) or glob")
        one_of("lora.init", self.init, ("A", "B"))
        one_of("lora.init_dist", self.init_dist, ("kaiming", "gaussian"))
        one_of("lora.scaling", self.scaling, ("alpha/r", "alpha/sqrt_r", "constant"))
        within("lora.dropout", self.dropout, at_least=0, below=1)
        one_of("lora.bias", self.bias, ("none", "lora", "all"))
        for pattern, rank in self.rank_pattern.items():
            within(f"lora.rank_pattern.{pattern}", rank, at_least=1)


@dataclass
class OptimConfig:
    """AdamW: lr is lr_A; lr_B is lora.ratio times it."""

    lr: float = MISSING
    betas: list[float] = MISSING
    eps: float = MISSING
    weight_decay: float = MISSING
    schedule: str = MISSING
    warmup: float = MISSING
    head_lr: float | None = MISSING
    embedding_lr: float = MISSING
    clip: float | None = MISSING
    groups: str = MISSING

    def check(self) -> None:
        within("optim.lr", self.lr, above=0)
        if len(self.betas) != 2:
            raise UserError(f"optim.betas: got {self.betas}; it takes two numbers, as [0.9, 0.999]")
        for beta in self.betas:
            within("optim.betas", beta, at_least=0, below=1)
        within("optim.eps", self.eps, above=0)
        within("optim.weight_decay", self.weight_decay, at_least=0)
        one_of("optim.schedule", self.schedule, ("linear", "cosine", "constant"))
        within("optim.warmup", self.warmup, at_least=0)
        if self.warmup >= 1 and self.warmup != int(self.warmup):
            raise UserError(
                f"optim.warmup: got {self.warmup}; below 1 it is a share of the steps, else a whole number of steps"
            )
        if self.head_lr is not None:
            within("optim.head_lr", self.head_lr, above=0)
        within("optim.embedding_lr", self.embedding_lr, above=0)
        if self.clip is not None:
            within("optim.clip", self.clip, above=0)
        one_of("optim.groups", self.groups, ("roles", "reference"))


@dataclass
class TrainConfig:
    """The loop: how long, on what, and how often it looks at itself."""

    epochs: float | None = MISSING
    steps: int | None = MISSING
    batch_size: int = MISSING
    max_length: int = MISSING
    bucketing: bool = MISSING
    eval_every: int | None = MISSING
    eval_first: bool = MISSING
    log_every: int = MISSING
    precision: str = MISSING
    device: str = MISSING
    threads: int | None = MISSING
    checkpoint_seconds: float = MISSING

    def check(self) -> None:
        if self.epochs is None and self.steps is None:
            raise UserError("train.epochs, train.steps: got null and null; set one of them (steps wins over epochs)")
        if self.epochs is not None:
            within("train.epochs", self.epochs, above=0)
        if self.steps is not None:
            within("train.steps", self.steps, at_least=1)
        within("train.batch_size", self.batch_size, at_least=1)
        within("train.max_length", self.max_length, at_least=4)
        if self.eval_every is not None:
            within("train.eval_every", self.eval_every, at_least=1)
        within("train.log_every", self.log_every, at_least=1)
        one_of("train.precision", self.precision, ("auto", "fp32", "bf16", "fp16"))
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", self.device):
            one_of("train.device", self.device, ("auto", "cpu", "cuda", "cuda:N", "mps"))
        if self.threads is not None:
            within("train.threads", self.threads, at_least=1)
        within("train.checkpoint_seconds", self.checkpoint_seconds, at_least=0)


@dataclass
class ProbeConfig:
    """What single updates do to the adapted maps' outputs (LoRA+, Theorem 1): how often to look, and on what."""

    every: int | None = None  # what older runs, which have no such node, have
    rows: int = 16

    def check(self) -> None:
        if self.every is not None:
            within("probe.every", self.every, at_least=1)
        within("probe.rows", self.rows, at_least=1)


@dataclass
class TrackerConfig:
    """The mirror of the metrics: wandb or none."""

    name: str = MISSING
    mode: str = MISSING
    project: str = MISSING
    entity: str | None = MISSING
    group: str | None = MISSING
    tags: list[str] = MISSING

    def check(self) -> None:
        one_of("tracker.name", self.name, ("wandb", "none"))
        one_of("tracker.mode", self.mode, ("auto", "online", "offline", "disabled"))


@dataclass
class Config:
    """One run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    store: str = MISSING
    seed: int = MISSING
    init_seed: int = MISSING
    data_seed: int = MISSING

    def check(self) -> None:
        """Raises UserError for the first value out of its range."""
        if not self.store:
            raise UserError("store: got an empty name; it is the folder for runs/ and cache/, e.g. outputs")
        for name in ("seed", "init_seed", "data_seed"):
            within(name, getattr(self, name), at_least=0, below=2**63)
        for node in fields(self):
            value = getattr(self, node.name)
            if hasattr(value, "check"):
                value.check()
        if self.probe.every is not None and self.method.name != "lora":
            raise UserError(
                f"probe.every: got {self.probe.every}, and method={self.method.name} has no A and B to look at; "
                "set it to null, or take method=lora"
            )


def from_hydra(composed: DictConfig) -> Config:
    """What Hydra composed, resolved, typed and in range; raises UserError for what is not."""
    refuse_unknown(composed, Config)
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    config.check()
    return config


def type_of(key: str, schema: type = Config) -> Any:
    """The annotation of a dotted key ("" is the whole schema), None where there is no such key."""
    found: Any = schema
    for part in filter(None, key.split(".")):
        found = _hints(found).get(part) if isinstance(found, type) and is_dataclass(found) else None
    return found


def keys(node: str = "", schema: type = Config) -> Iterator[str]:
    """Every dotted key below a node, nodes before what is in them."""
    for name in _names(type_of(node, schema)):
        key = f"{node}.{name}" if node else name
        yield key
        if is_dataclass(type_of(key, schema)):
            yield from keys(key, schema)


def no_such_key(key: str, schema: type = Config) -> str:
    """The line for a dotted key that the schema lacks: what its node has, and the key that was likely meant."""
    node, _, name = key.rpartition(".")
    every = list(keys(schema=schema))
    namesakes = [k for k in every if k.rpartition(".")[2] == name]
    near = namesakes if len(namesakes) == 1 else difflib.get_close_matches(key, every, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    known = is_dataclass(type_of(node, schema))
    of = node if known else ""
    has = f"{of or 'the configuration'} has {', '.join(_names(type_of(of, schema)))}"
    return f"{key}: no such key; {has}{hint}"


@functools.cache  # sweeps ask for thousands of configs
def _hints(schema: type) -> dict[str, Any]:
    return get_type_hints(schema)


def _names(schema: Any) -> list[str]:
    return [f.name for f in fields(schema)]


def refuse_unknown(composed: DictConfig, schema: type) -> None:
    """Raises UserError for a key that was added with `+`, which OmegaConf lets through."""
    _only_known(OmegaConf.to_container(composed), "", schema)


def _only_known(values: Any, node: str, schema: type) -> None:
    for name, value in values.items():
        key = f"{node}.{name}" if node else str(name)
        if type_of(key, schema) is None:
            raise UserError(no_such_key(key, schema))
        if is_dataclass(type_of(key, schema)) and isinstance(value, dict):
            _only_known(value, key, schema)


def one_of(key: str, value: str, allowed: Collection[str]) -> None:
    """Raises UserError, with the nearest allowed value, unless `value` is allowed."""
    if value not in allowed:
        near = difflib.get_close_matches(value, allowed, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{key}: got {value!r}; allowed: {', '.join(allowed)}{hint}")


def within(
    key: str, value: float, *, at_least: float | None = None, above: float | None = None, below: float | None = None
) -> None:
    """Raises UserError unless `value` is a finite number in the range."""
    limits: list[tuple[Any, str, bool]] = [
        (at_least, "at least", at_least is None or value >= at_least),
        (above, "above", above is None or value > above),
        (below, "below", below is None or value < below),
    ]
    if not all(ok for _, _, ok in limits) or value != value or value in (float("inf"), float("-inf")):
        allowed = " and ".join(f"{word} {limit}" for limit, word, _ in limits if limit is not None)
        raise UserError(f"{key}: got {value}; it must be a number {allowed}")
