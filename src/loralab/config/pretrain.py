"""The schema of a pretraining (pretrain.py): types and ranges. The values are in conf/pretrain.yaml."""

from dataclasses import dataclass, field

from omegaconf import DictConfig

from loralab.config.checks import (
    betas_of_adam,
    check_rates,
    check_values,
    choice,
    file_name,
    folder,
    length_of_training,
    name_of_device,
    number,
    setting,
    within,
)
from loralab.config.schema import LARGEST, MOST_THREADS, WIDEST, TrackerConfig
from loralab.config.trackers import check_tracker
from loralab.config.typed import typed
from loralab.errors import UserError

__all__ = ["HEAD_WIDTH", "PretrainConfig", "from_hydra"]

MOST_WEIGHTS = 10**10  # 160 GB with gradients and AdamW's two averages, in fp32: the largest accelerators
HEAD_WIDTH = 32  # of an attention head, at every model width


def _whole_heads(key: str, width: int) -> None:
    within(key, width, at_least=HEAD_WIDTH, at_most=WIDEST)
    if width % HEAD_WIDTH:
        raise UserError(f"{key}: got {width}; it must be a multiple of {HEAD_WIDTH}, the width of an attention head")


@dataclass
class ShapeConfig:
    """The model's shape."""

    width: int = setting(_whole_heads)
    layers: int = number(at_least=1, at_most=1000)


@dataclass
class CorpusConfig:
    """The corpus: its texts, tokenizer and masking."""

    reviews: int | None = number(at_least=1, below=2**63)
    heldout: int = number(at_least=1, below=2**63)
    vocabulary: int = number(at_least=300, below=2**16)
    length: int = number(at_least=16, below=4096)
    masked: float = number(above=0, below=0.9)


@dataclass
class RatesConfig:
    """AdamW; the learning rate is lr_times_width / width."""

    lr_times_width: float = number(above=0, at_most=LARGEST)
    betas: list[float] = setting(betas_of_adam)
    eps: float = number(above=0, at_most=LARGEST)
    weight_decay: float = number(at_least=0, at_most=LARGEST)
    warmup: float = number(at_least=0, below=1)
    clip: float = number(above=0, at_most=LARGEST)


@dataclass
class LengthConfig:
    """The training loop."""

    epochs: float | None = number(above=0, at_most=10**6)
    steps: int | None = number(at_least=1, at_most=10**9)
    batch_size: int = number(at_least=1, at_most=2**20)
    eval_every: int = number(at_least=1, at_most=10**9)
    log_every: int = number(at_least=1, at_most=10**9)
    precision: str = choice("auto", "fp32", "bf16")
    device: str = setting(name_of_device)
    threads: int | None = number(at_least=1, at_most=MOST_THREADS)
    checkpoint_seconds: float = number(at_least=0, at_most=10**9)


@dataclass
class PretrainConfig:
    """One pretraining."""

    name: str = setting(file_name)
    model: ShapeConfig = field(default_factory=ShapeConfig)
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    optim: RatesConfig = field(default_factory=RatesConfig)
    train: LengthConfig = field(default_factory=LengthConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    store: str = setting(folder("it is the folder for pretrained/ and cache/, e.g. outputs"))
    seed: int = number(at_least=0, below=2**63)

    @property
    def lr(self) -> float:
        """Theta(1 / width), so that a step changes a map's output equally at every width (muP, Yang et al. 2021)."""
        return self.optim.lr_times_width / self.model.width


def from_hydra(composed: DictConfig) -> PretrainConfig:
    """The composed config as a PretrainConfig, interpolations resolved; raises UserError for values out of range."""
    config = typed(composed, PretrainConfig)
    check_values(config)
    length_of_training(config.train.epochs, config.train.steps)
    check_tracker(name=config.tracker.name, mode=config.tracker.mode, entity=config.tracker.entity)
    weights = 12 * config.model.layers * config.model.width**2  # of the layers: attention 4, inner maps 8
    if weights > MOST_WEIGHTS:
        raise UserError(
            f"model.width, model.layers: got {config.model.width} and {config.model.layers}, {weights:.2g} weights; "
            f"at most {MOST_WEIGHTS:.0e}"
        )
    optim = config.optim
    rates = {"optim.lr_times_width / model.width": config.lr}
    check_rates(rates, betas=optim.betas, eps=optim.eps, weight_decay=optim.weight_decay)
    return config
