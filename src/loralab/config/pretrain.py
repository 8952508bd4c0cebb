"""The schema of a pretraining (pretrain.py): types and ranges. The values are in conf/pretrain.yaml."""

import re
from dataclasses import dataclass, field, fields

from omegaconf import MISSING, DictConfig, OmegaConf

from loralab.config.checks import betas_of_adam, length_of_training, name_of_device, one_of, within
from loralab.config.keys import refuse_unknown
from loralab.config.schema import TrackerConfig
from loralab.errors import UserError

__all__ = ["HEAD_WIDTH", "PretrainConfig", "from_hydra"]

HEAD_WIDTH = 32  # of an attention head, at every width of a model


@dataclass
class ShapeConfig:
    """The model's shape."""

    width: int = MISSING
    layers: int = MISSING

    def check(self) -> None:
        within("model.width", self.width, at_least=HEAD_WIDTH)
        if self.width % HEAD_WIDTH:
            raise UserError(
                f"model.width: got {self.width}; it must be a multiple of {HEAD_WIDTH}, the width of an attention head"
            )
        within("model.layers", self.layers, at_least=1)


@dataclass
class CorpusConfig:
    """The texts, and their tokens."""

    reviews: int | None = MISSING
    heldout: int = MISSING
    vocabulary: int = MISSING
    length: int = MISSING
    masked: float = MISSING

    def check(self) -> None:
        if self.reviews is not None:
            within("corpus.reviews", self.reviews, at_least=1)
        within("corpus.heldout", self.heldout, at_least=1)
        within("corpus.vocabulary", self.vocabulary, at_least=300, below=2**16)
        within("corpus.length", self.length, at_least=16, below=4096)
        within("corpus.masked", self.masked, above=0, below=0.9)


@dataclass
class RatesConfig:
    """AdamW; the learning rate is lr_times_width / width."""

    lr_times_width: float = MISSING
    betas: list[float] = MISSING
    eps: float = MISSING
    weight_decay: float = MISSING
    warmup: float = MISSING
    clip: float = MISSING

    def check(self) -> None:
        within("optim.lr_times_width", self.lr_times_width, above=0)
        betas_of_adam(self.betas)
        within("optim.eps", self.eps, above=0)
        within("optim.weight_decay", self.weight_decay, at_least=0)
        within("optim.warmup", self.warmup, at_least=0, below=1)
        within("optim.clip", self.clip, above=0)


@dataclass
class LengthConfig:
    """The loop."""

    epochs: float | None = MISSING
    steps: int | None = MISSING
    batch_size: int = MISSING
    eval_every: int = MISSING
    log_every: int = MISSING
    precision: str = MISSING
    device: str = MISSING
    threads: int | None = MISSING
    checkpoint_seconds: float = MISSING

    def check(self) -> None:
        length_of_training(self.epochs, self.steps)
        for name in ("batch_size", "eval_every", "log_every"):
            within(f"train.{name}", getattr(self, name), at_least=1)
        one_of("train.precision", self.precision, ("auto", "fp32", "bf16"))
        name_of_device(self.device)
        if self.threads is not None:
            within("train.threads", self.threads, at_least=1)
        within("train.checkpoint_seconds", self.checkpoint_seconds, at_least=0)


@dataclass
class PretrainConfig:
    """One pretraining."""

    name: str = MISSING
    model: ShapeConfig = field(default_factory=ShapeConfig)
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    optim: RatesConfig = field(default_factory=RatesConfig)
    train: LengthConfig = field(default_factory=LengthConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    store: str = MISSING
    seed: int = MISSING

    @property
    def lr(self) -> float:
        """Theta(1 / width), so that a step changes a map's output by as much at each width (muP, Yang et al. 2021)."""
        return self.optim.lr_times_width / self.model.width

    def check(self) -> None:
        """Raises UserError for the first value out of its range."""
        if not re.fullmatch(r"[\w.]+", self.name):
            raise UserError(f"name: got {self.name!r}; it names a folder: letters, digits, _ and .")
        if not self.store:
            raise UserError("store: got an empty name; it is the folder for pretrained/ and cache/, e.g. outputs")
        within("seed", self.seed, at_least=0, below=2**63)
        for node in fields(self):
            value = getattr(self, node.name)
            if hasattr(value, "check"):
                value.check()


def from_hydra(composed: DictConfig) -> PretrainConfig:
    """What Hydra composed, resolved, typed and in range; raises UserError for what is not."""
    refuse_unknown(composed, PretrainConfig)
    config = OmegaConf.to_object(composed)
    assert isinstance(config, PretrainConfig)
    config.check()
    return config
