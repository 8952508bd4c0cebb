"""The schema of a run's configuration: types and ranges. The values, every default among them, are in conf/.

Hydra merges conf/*.yaml and the command line into these classes, which rejects unknown keys and wrong types;
`Config.check` rejects values out of range. Nothing below `run.py` sees these classes.
"""

from dataclasses import dataclass, field, fields

from omegaconf import MISSING, DictConfig, OmegaConf

from loralab.config.checks import betas_of_adam, length_of_training, name_of_device, one_of, within
from loralab.config.keys import refuse_unknown
from loralab.errors import UserError

__all__ = ["METHODS", "Config", "TrackerConfig", "from_hydra"]

# What each method reads of the configuration beside its own name; plan.py leaves the other nodes out of a run's hash.
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
    """How the backbone is adapted."""

    name: str = MISSING

    def check(self) -> None:
        one_of("method.name", self.name, METHODS)


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
    rank_pattern: dict[str, int] = MISSING  # open to new keys, see loralab.config.compose
    dora: bool = False  # what older runs, which do not name it, have

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
class BottleneckConfig:
    """Adapters of Houlsby et al. and Pfeiffer et al."""

    size: int = 64  # these three nodes and `generate` have values here for older runs, which do not name them
    activation: str = "gelu"

    def check(self) -> None:
        within("bottleneck.size", self.size, at_least=1)
        one_of("bottleneck.activation", self.activation, ("gelu", "relu", "tanh"))


@dataclass
class PromptConfig:
    """Virtual tokens: prefix tuning, prompt tuning, P-tuning."""

    tokens: int = 20
    hidden: int | None = None

    def check(self) -> None:
        within("prompt.tokens", self.tokens, at_least=1)
        if self.hidden is not None:
            within("prompt.hidden", self.hidden, at_least=1)


@dataclass
class IntrinsicConfig:
    """theta_0 + R z, with z of `dim` numbers."""

    dim: int = 1000
    projection: str = "fastfood"

    def check(self) -> None:
        within("intrinsic.dim", self.dim, at_least=1)
        one_of("intrinsic.projection", self.projection, ("fastfood", "sparse"))


@dataclass
class GenerateConfig:
    """How a generation task's answers are decoded."""

    beams: int = 1
    length_penalty: float = 1.0
    max_new_tokens: int = 64
    separator: str = "\n"

    def check(self) -> None:
        within("generate.beams", self.beams, at_least=1)
        within("generate.length_penalty", self.length_penalty)
        within("generate.max_new_tokens", self.max_new_tokens, at_least=1)


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
        betas_of_adam(self.betas)
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
        length_of_training(self.epochs, self.steps)
        within("train.batch_size", self.batch_size, at_least=1)
        within("train.max_length", self.max_length, at_least=4)
        if self.eval_every is not None:
            within("train.eval_every", self.eval_every, at_least=1)
        within("train.log_every", self.log_every, at_least=1)
        one_of("train.precision", self.precision, ("auto", "fp32", "bf16", "fp16"))
        name_of_device(self.device)
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
    bottleneck: BottleneckConfig = field(default_factory=BottleneckConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    intrinsic: IntrinsicConfig = field(default_factory=IntrinsicConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
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
        has_lora = "lora" in METHODS[self.method.name]
        if self.probe.every is not None and (not has_lora or self.lora.dora):
            why = "lora.dora=true scales what they add" if has_lora else "there is no A and B to look at"
            raise UserError(
                f"probe.every: got {self.probe.every}, and with method={self.method.name} {why}; "
                "set it to null, or take method=lora without dora"
            )


def from_hydra(composed: DictConfig) -> Config:
    """What Hydra composed, resolved, typed and in range; raises UserError for what is not."""
    refuse_unknown(composed, Config)
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    config.check()
    return config
