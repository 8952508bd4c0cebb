"""The schema of a run's configuration: types and ranges. The values, including all defaults, are in conf/.

Hydra merges conf/*.yaml and the command line into these classes, which rejects unknown keys and wrong types;
`from_hydra` rejects values out of range.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING, DictConfig

from loralab.config.checks import (
    added_later,
    betas_of_adam,
    brief,
    check_rates,
    check_values,
    choice,
    folder,
    leave_rows_to_train_on,
    length_of_training,
    name_of_device,
    not_empty,
    number,
    one_of,
    setting,
    unescaped,
    within,
)
from loralab.config.optimizer import OPTIMIZERS, check_optimizer
from loralab.config.quantize import check_quantize
from loralab.config.recompute import check_recompute
from loralab.config.sharding import check_sharding
from loralab.config.trackers import TRACKERS, check_tracker
from loralab.config.typed import typed
from loralab.config.weights import keep_one_source
from loralab.config.widening import check_widening
from loralab.errors import UserError

__all__ = [
    "LARGEST", "METHODS", "MOST_THREADS", "WIDEST", "Config", "TrackerConfig", "fit_into_fp32", "from_hydra",
]  # fmt: skip

# The upper ends of the ranges are far beyond all use; they end what no memory holds and what overflows, at once.
LARGEST = 1e30  # of rates and their like: the optimizer's products stay below fp32's 3.4e38, see `check_rates`
WIDEST = 2**16  # of a matrix: 5 times the width of GPT-3
RATED = ("q", "k", "v", "o", "mlp", "head")  # the roles of loralab.theory.rate_law, and the head
MOST_THREADS = 1024  # a run takes at most eight times the cores that are there

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


def _share_or_steps(key: str, value: float) -> None:
    within(key, value, at_least=0, at_most=10**9)
    if value >= 1 and value != int(value):
        raise UserError(f"{key}: got {value}; below 1 it is a share of the steps, else a whole number of steps")


def _some_share_or_steps(key: str, value: float) -> None:
    within(key, value, above=0)
    _share_or_steps(key, value)


def _ranks(key: str, pattern: Mapping[str, int]) -> None:
    for name, rank in pattern.items():
        within(f"{key}.{name}", rank, at_least=1, at_most=WIDEST)


def _rate_or_auto(key: str, lr: float | str) -> None:
    if isinstance(lr, str):
        if lr != "auto":
            raise UserError(f"{key}: got {brief(lr)}; it must be a number above 0, or auto")
    else:
        within(key, lr, above=0, at_most=LARGEST)


def _rates_by_role(key: str, rates: Mapping[str, float]) -> None:
    for role, rate in rates.items():
        one_of(key, role, RATED)
        within(f"{key}.{role}", rate, above=0, at_most=LARGEST)


def _short(key: str, name: str) -> None:
    if not 0 < len(name.encode()) <= 100:  # some are a part of the name of a run's folder
        raise UserError(f"{key}: got {brief(name)}; a name has 1 to 100 bytes")


def _all_short(key: str, names: Sequence[str]) -> None:
    for name in names:
        _short(key, name)


@dataclass
class ModelConfig:
    """The backbone: the source of its weights, and options of its forward pass."""

    name: str = setting(_short)
    package: str | None = MISSING
    hub: str | None = MISSING
    revision: str | None = MISSING
    path: str | None = setting(folder("it is a checkpoint's folder, a GGUF file, or null"))
    default_lr: float = number(above=0, at_most=LARGEST)
    rates: dict[str, float] = added_later(setting(_rates_by_role), before={})  # accepts new keys, as lora.rank_pattern
    dropout: float = number(at_least=0, below=1)
    attention: str = choice("auto", "eager", "sdpa")
    widen: int = added_later(number(at_least=1, at_most=WIDEST), before=1)
    widen_noise: float = added_later(number(at_least=0, at_most=LARGEST), before=0.0)
    gradient_checkpointing: bool = added_later(field(), before=False)
    quantize: str | None = added_later(choice("int8", "nf4"), before=None)


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
    split_seed: int | None = number(at_least=0, below=2**63)
    train_rows: int | None = number(at_least=1, below=2**63)
    eval_rows: int | None = added_later(number(at_least=1, below=2**63), before=None)
    metric: str | None = MISSING
    class_weights: str | None = added_later(choice("balanced"), before=None)
    title: str | None = added_later(setting(_short), before=None)

    @property
    def called(self) -> str:
        """What people call the task: its title, else the name of its own file without the ending, else its name."""
        return self.title or (Path(self.files.train).stem if self.files.train else "") or self.name


@dataclass
class MethodConfig:
    """How the backbone is adapted."""

    name: str = choice(*METHODS)


@dataclass
class LoraConfig:
    """The adapter, and LoRA+'s ratio."""

    rank: int = number(at_least=1, at_most=WIDEST)
    alpha: float = number(above=0, at_most=LARGEST)
    ratio: float = number(above=0, at_most=LARGEST)
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
    size: int = number(at_least=1, at_most=2**14, default=64)  # wider than most models, hence no bottleneck
    activation: str = choice("gelu", "relu", "tanh", default="gelu")


@dataclass
class PromptConfig:
    """Virtual tokens: prefix tuning, prompt tuning, P-tuning."""

    tokens: int = number(at_least=1, at_most=2**13, default=20)
    hidden: int | None = number(at_least=1, at_most=2**13, default=None)  # P-tuning squares it: 268 MB


@dataclass
class IntrinsicConfig:
    """theta_0 + R z, with z of `dim` numbers."""

    dim: int = number(at_least=1, at_most=2**24, default=1000)  # 16.8 million; the paper has up to 10^5
    projection: str = choice("fastfood", "sparse", default="fastfood")


@dataclass
class GenerateConfig:
    """Decoding of a generation task's answers."""

    # every step has batch_size * beams rows of the vocabulary's size; papers take 1 to 20 beams
    beams: int = number(at_least=1, at_most=128, default=1)
    length_penalty: float = number(at_least=-7, at_most=7, default=1.0)  # 65,536^7 < 3.4e38: finite for every length
    max_new_tokens: int = number(at_least=1, at_most=2**16, default=64)
    separator: str = "\n"


@dataclass
class OptimConfig:
    """lr is lr_A, and lr_B = lora.ratio * lr. lr=auto: by the rate law of AdamW (loralab.runs.rates)."""

    lr: int | float | str = setting(_rate_or_auto)  # from_hydra makes a number a float, and the plan resolves auto
    betas: list[float] = setting(betas_of_adam)
    eps: float = number(above=0, at_most=LARGEST)
    weight_decay: float = number(at_least=0, at_most=LARGEST)
    schedule: str = choice("linear", "cosine", "constant")
    warmup: float = setting(_share_or_steps)
    head_lr: float | None = number(above=0, at_most=LARGEST)
    embedding_lr: float = number(above=0, at_most=LARGEST)
    clip: float | None = number(above=0, at_most=LARGEST)
    groups: str = choice("roles", "reference")
    name: str = added_later(choice(*OPTIMIZERS), before="adamw")


@dataclass
class TrainConfig:
    """The training loop: length, batches, evaluation, logging, precision and device."""

    epochs: float | None = number(above=0, at_most=10**6)
    steps: int | None = number(at_least=0, at_most=10**9)  # 0 scores the model as it is
    batch_size: int = number(at_least=1, at_most=2**20)
    micro_batch_size: int | None = added_later(number(at_least=1, at_most=2**20), before=None)
    max_length: int = number(at_least=4, at_most=2**20)  # no model has positions for more
    bucketing: bool = MISSING
    eval_every: float | None = setting(_some_share_or_steps)
    eval_first: bool = MISSING
    log_every: int = number(at_least=1, at_most=10**9)
    precision: str = choice("auto", "fp32", "bf16", "fp16")
    device: str = setting(name_of_device)
    threads: int | None = number(at_least=1, at_most=MOST_THREADS)
    checkpoint_seconds: float = number(at_least=0, at_most=10**9)
    pause_at: float | None = added_later(setting(_some_share_or_steps), before=None)
    patience: int | None = added_later(number(at_least=1, at_most=10**9), before=None)
    keep: str = added_later(choice("last", "best"), before="last")
    again: bool = added_later(field(), before=False)
    fsdp: bool = added_later(field(), before=False)

    def __post_init__(self) -> None:
        if isinstance(self.eval_every, float) and self.eval_every.is_integer():
            self.eval_every = int(self.eval_every)  # runs have it in their hash as a whole number


@dataclass
class ProbeConfig:
    """Probes of the change of the adapted maps' outputs per update (LoRA+, Theorem 1): interval and rows."""

    # defaults for older runs, whose configs lack this node
    every: int | None = number(at_least=1, at_most=10**9, default=None)
    rows: int = number(at_least=1, at_most=2**20, default=16)


@dataclass
class TrackerConfig:
    """The mirror of the metrics: W&B, TensorBoard, MLflow, Trackio or none."""

    name: str = choice(*TRACKERS)
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
    store: str = setting(folder("it is the folder for runs/ and cache/, e.g. outputs"))
    seed: int = number(at_least=0, below=2**63)
    init_seed: int = number(at_least=0, below=2**63)
    data_seed: int = number(at_least=0, below=2**63)
    name: str | None = added_later(setting(_short), before=None)
    tags: list[str] = added_later(setting(_all_short), before=[])


def from_hydra(composed: DictConfig) -> Config:
    """The composed config as a Config, interpolations resolved; raises UserError for values out of range."""
    config = typed(composed, Config)
    check_values(config)
    keep_one_source(config.model, store=config.store)
    leave_rows_to_train_on(config.task.validation_share, config.task.test_share)
    length_of_training(config.train.epochs, config.train.steps)
    fit_into_fp32(config)
    config.generate.separator = unescaped(config.generate.separator)
    _have_factors_to_probe(config)
    check_tracker(name=config.tracker.name, mode=config.tracker.mode, entity=config.tracker.entity)
    check_widening(config.model.widen, config.model.widen_noise, config.method.name)
    check_optimizer(config.optim.name, lr=config.optim.lr, betas=config.optim.betas, eps=config.optim.eps)
    check_quantize(config.model.quantize, config.method.name, config.model.widen)
    check_recompute(config.model.gradient_checkpointing, config.method.name)
    check_sharding(config.train.fsdp, config.method.name, config.model.quantize, config.probe.every)
    return config


def fit_into_fp32(config: Config) -> None:
    """Raises UserError for rates that AdamW cannot compute with; `auto` is left to the plan, which resolves it."""
    optim = config.optim
    known = {} if isinstance(optim.lr, str) else {"optim.lr": optim.lr}
    rates = known | {"optim.embedding_lr": optim.embedding_lr}
    if known and "lora" in METHODS[config.method.name]:
        rates["optim.lr * lora.ratio"] = known["optim.lr"] * config.lora.ratio
    if optim.head_lr is not None:
        rates["optim.head_lr"] = optim.head_lr
    check_rates(rates, betas=optim.betas, eps=optim.eps, weight_decay=optim.weight_decay)


def _have_factors_to_probe(config: Config) -> None:
    has_lora = "lora" in METHODS[config.method.name]
    if config.probe.every is not None and (not has_lora or config.lora.dora):
        why = "lora.dora=true rescales the update B A" if has_lora else "there are no A and B to probe"
        raise UserError(
            f"probe.every: got {config.probe.every}, and with method={config.method.name} {why}; "
            "set it to null, or take method=lora without dora"
        )
