"""The schema of a run's configuration: types and ranges. The values, including all defaults, are in conf/.

Hydra merges conf/*.yaml and the command line into these classes, which rejects unknown keys and wrong types;
`from_hydra` rejects values out of range.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from omegaconf import MISSING, DictConfig, OmegaConf

from loralab.config.checks import (
    added_later,
    betas_of_adam,
    check_values,
    choice,
    length_of_training,
    name_of_device,
    not_empty,
    number,
    setting,
    within,
)
from loralab.config.keys import refuse_unknown
from loralab.errors import UserError

__all__ = ["METHODS", "Config", "TrackerConfig", "from_hydra"]

# The nodes that each method reads; a run's hash leaves the others out (runs/plan.py).
METHODS: dict[str, tuple[str, ...]] = {
    "lora": ("lora",),
    "head": (),
    "full": (),
    "bitfit": (),
    "houlsby": ("bottleneck",),
    "pfeiffer": ("bottleneck",),
    "prefix": ("prompt",),
    "prompt": ("prompt",),
    "p_tuning": ("prompt",),
    "intrinsic": ("intrinsic",),
    "lora_prefix": ("lora", "prompt"),
}


def _share_or_steps(key: str, warmup: float) -> None:
    within(key, warmup, at_least=0)
    if warmup >= 1 and warmup != int(warmup):
        raise UserError(f"{key}: got {warmup}; below 1 it is a share of the steps, else a whole number of steps")


def _ranks(key: str, pattern: Mapping[str, int]) -> None:
    for name, rank in pattern.items():
        within(f"{key}.{name}", rank, at_least=1)


@dataclass
class ModelConfig:
    """The backbone: the source of its weights, and options of its forward pass."""

    name: str = MISSING
    package: str | None = MISSING
    hub: str | None = MISSING
    revision: str | None = MISSING
    path: str | None = setting(not_empty("it is a checkpoint's folder, or null"))
    default_lr: float = number(above=0)
    dropout: float = number(at_least=0, below=1)
    attention: str = choice("auto", "eager", "sdpa")


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
    kind: str | None = choice("classification", "regression")
    revision: str | None = MISSING
    validation_share: float | None = number(above=0, below=1)
    test_share: float | None = number(above=0, below=1)
    split_seed: int | None = number(at_least=0)
    train_rows: int | None = number(at_least=1)
    eval_rows: int | None = added_later(number(at_least=1), before=None)
    metric: str | None = MISSING


@dataclass
class MethodConfig:
    """How the backbone is adapted."""

    name: str = choice(*METHODS)


@dataclass
class LoraConfig:
    """The adapter, and LoRA+'s ratio."""

    rank: int = number(at_least=1)
    alpha: float = number(above=0)
    ratio: float = number(above=0)
    targets: list[str] = setting(not_empty("name at least one role (q, k, v, o, mlp, all) or glob"))
    init: str = choice("A", "B")
    init_dist: str = choice("kaiming", "gaussian")
    scaling: str = choice("alpha/r", "alpha/sqrt_r", "constant")
    dropout: float = number(at_least=0, below=1)
    bias: str = choice("none", "lora", "all")
    rank_pattern: dict[str, int] = setting(_ranks)  # accepts new keys, see loralab.config.compose
    dora: bool = added_later(field(), before=False)


@dataclass
class BottleneckConfig:
    """Bottleneck adapters (Houlsby et al., Pfeiffer et al.)."""

    # these three nodes and `generate` have defaults here because older runs' configs lack them
    size: int = number(at_least=1, default=64)
    activation: str = choice("gelu", "relu", "tanh", default="gelu")


@dataclass
class PromptConfig:
    """Virtual tokens: prefix tuning, prompt tuning, P-tuning."""

    tokens: int = number(at_least=1, default=20)
    hidden: int | None = number(at_least=1, default=None)


@dataclass
class IntrinsicConfig:
    """theta_0 + R z, with z of `dim` numbers."""

    dim: int = number(at_least=1, default=1000)
    projection: str = choice("fastfood", "sparse", default="fastfood")


@dataclass
class GenerateConfig:
    """Decoding of a generation task's answers."""

    beams: int = number(at_least=1, default=1)
    length_penalty: float = number(default=1.0)
    max_new_tokens: int = number(at_least=1, default=64)
    separator: str = "\n"


@dataclass
class OptimConfig:
    """AdamW; lr is lr_A, and lr_B = lora.ratio * lr."""

    lr: float = number(above=0)
    betas: list[float] = setting(betas_of_adam)
    eps: float = number(above=0)
    weight_decay: float = number(at_least=0)
    schedule: str = choice("linear", "cosine", "constant")
    warmup: float = setting(_share_or_steps)
    head_lr: float | None = number(above=0)
    embedding_lr: float = number(above=0)
    clip: float | None = number(above=0)
    groups: str = choice("roles", "reference")


@dataclass
class TrainConfig:
    """The training loop: length, batches, evaluation, logging, precision and device."""

    epochs: float | None = number(above=0)
    steps: int | None = number(at_least=1)
    batch_size: int = number(at_least=1)
    micro_batch_size: int | None = added_later(number(at_least=1), before=None)
    max_length: int = number(at_least=4)
    bucketing: bool = MISSING
    eval_every: int | None = number(at_least=1)
    eval_first: bool = MISSING
    log_every: int = number(at_least=1)
    precision: str = choice("auto", "fp32", "bf16", "fp16")
    device: str = setting(name_of_device)
    threads: int | None = number(at_least=1)
    checkpoint_seconds: float = number(at_least=0)


@dataclass
class ProbeConfig:
    """Probes of the change of the adapted maps' outputs per update (LoRA+, Theorem 1): interval and rows."""

    # defaults for older runs, whose configs lack this node
    every: int | None = number(at_least=1, default=None)
    rows: int = number(at_least=1, default=16)


@dataclass
class TrackerConfig:
    """The mirror of the metrics: wandb or none."""

    name: str = choice("wandb", "none")
    mode: str = choice("auto", "online", "offline", "disabled")
    project: str = MISSING
    entity: str | None = MISSING
    group: str | None = MISSING
    tags: list[str] = MISSING


@dataclass
class Config:
    """One run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    bottleneck: BottleneckConfig = field(default_factory=BottleneckConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    intrinsic: IntrinsicConfig = field(default_factory=IntrinsicConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    store: str = setting(not_empty("it is the folder for runs/ and cache/, e.g. outputs"))
    seed: int = number(at_least=0, below=2**63)
    init_seed: int = number(at_least=0, below=2**63)
    data_seed: int = number(at_least=0, below=2**63)


def from_hydra(composed: DictConfig) -> Config:
    """The composed config as a Config, interpolations resolved; raises UserError for values out of range."""
    refuse_unknown(composed, Config)
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    check_values(config)
    _leave_rows_to_train_on(config.task)
    length_of_training(config.train.epochs, config.train.steps)
    _have_factors_to_probe(config)
    return config


def _leave_rows_to_train_on(task: TaskConfig) -> None:
    if (task.validation_share or 0) + (task.test_share or 0) >= 1:
        raise UserError(
            f"task.validation_share, task.test_share: got {task.validation_share} and {task.test_share}; "
            "together they must be below 1, to leave rows to train on"
        )


def _have_factors_to_probe(config: Config) -> None:
    has_lora = "lora" in METHODS[config.method.name]
    if config.probe.every is not None and (not has_lora or config.lora.dora):
        why = "lora.dora=true rescales the update B A" if has_lora else "there are no A and B to probe"
        raise UserError(
            f"probe.every: got {config.probe.every}, and with method={config.method.name} {why}; "
            "set it to null, or take method=lora without dora"
        )
