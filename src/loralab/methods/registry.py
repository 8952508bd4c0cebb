"""Table of the methods by name: how each adapts a backbone, and saves, loads and merges the trained tensors."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from loralab.backbones.load import Backbone
from loralab.config.schema import Config
from loralab.device import DTYPES
from loralab.methods import bitfit, bottleneck, full, intrinsic, lora, prompts
from loralab.methods.formats import native, peft_config, peft_lora, peft_prompt
from loralab.methods.formats.plain import load_weights, save_model

__all__ = ["CATALOGUE", "Method"]

_PEFT_FILES = (peft_config.CONFIG, peft_config.WEIGHTS[0])  # also of virtual tokens

Attach = Callable[[Backbone, Config], None]
Save = Callable[[Backbone, Config, Path, str], None]
Load = Callable[[Backbone, Path], None]


def _nothing(_backbone: Backbone, _config: Config) -> None:
    """Does nothing: no modules to attach, or none to merge before `loralab.methods.formats.plain` writes the model."""


def _save_peft(backbone: Backbone, _config: Config, directory: Path, base_model: str) -> None:
    peft_lora.save_peft(backbone.model, directory, head=backbone.head, base_model=base_model)


def _load_peft(backbone: Backbone, directory: Path) -> None:
    peft_lora.load_adapter(backbone.model, directory)


@dataclass(frozen=True)
class Method:
    """One method: how it is attached, saved, loaded and merged.

    attach: adds its modules to a backbone, in their state before training. save, load: write and read the trained
    tensors in a folder of the run; the last argument of save is the name or path of the base model. merge: prepares an
    attached backbone for `loralab.methods.formats.plain`, which writes a plain checkpoint; None if it cannot be merged.
    whole: the folder holds a whole model (`model/`), not an adapter (`adapter/`). peft: PEFT can read the whole folder.
    files: what `save` writes in the folder, as glob patterns.
    """

    attach: Attach
    save: Save = _save_peft
    load: Load = _load_peft
    merge: Attach | None = _nothing
    whole: bool = False
    peft: bool = True
    files: tuple[str, ...] = _PEFT_FILES

    @property
    def folder(self) -> str:
        """The name of the folder in a run's directory."""
        return "model" if self.whole else "adapter"


def _lora(backbone: Backbone, config: Config) -> None:
    """Attaches A and B; lora.ratio affects only their learning rates (`loralab.training.optim`)."""
    lora.attach(
        backbone.model, backbone.maps, head=backbone.head, seed=config.init_seed,
        targets=config.lora.targets, rank=config.lora.rank, rank_pattern=config.lora.rank_pattern,
        alpha=config.lora.alpha, scaling=config.lora.scaling, init=cast(Any, config.lora.init),
        init_dist=cast(Any, config.lora.init_dist), dropout=config.lora.dropout, bias=cast(Any, config.lora.bias),
        dora=config.lora.dora, copies=backbone.source.copies,
    )  # fmt: skip


def _full(backbone: Backbone, config: Config) -> None:
    dtype = DTYPES[config.train.precision]
    full.attach(backbone.model, head=backbone.head, device=backbone.model.device, dtype=dtype)


def _save_model(backbone: Backbone, _config: Config, directory: Path, _base_model: str) -> None:
    save_model(backbone.model, directory, backbone.source)


def _load_model(backbone: Backbone, directory: Path) -> None:
    load_weights(backbone.model, directory)


def _bitfit(backbone: Backbone, _config: Config) -> None:
    bitfit.attach(backbone.model, head=backbone.head)


def _bottleneck(placement: Literal["houlsby", "pfeiffer"]) -> Attach:
    def attach(backbone: Backbone, config: Config) -> None:
        bottleneck.attach(
            backbone.model, backbone.maps, head=backbone.head, placement=placement, seed=config.init_seed,
            size=config.bottleneck.size, activation=cast(Any, config.bottleneck.activation),
        )  # fmt: skip

    return attach


def _bottleneck_settings(config: Config) -> dict[str, Any]:
    return {"size": config.bottleneck.size, "activation": config.bottleneck.activation}


def _intrinsic(backbone: Backbone, config: Config) -> None:
    intrinsic.attach(
        backbone.model, head=backbone.head, seed=config.init_seed,
        dim=config.intrinsic.dim, projection=cast(Any, config.intrinsic.projection),
    )  # fmt: skip


def _intrinsic_settings(config: Config) -> dict[str, Any]:
    return {"dim": config.intrinsic.dim, "projection": config.intrinsic.projection}


def _merge_intrinsic(backbone: Backbone, _config: Config) -> None:
    intrinsic.merge(backbone.model)


def _own(attach: Attach, settings: Callable[[Config], dict[str, Any]], *, merge: Attach | None) -> Method:
    """A method saved in loralab's own format; `settings` returns the method's settings for adapter.json."""

    def save(backbone: Backbone, config: Config, directory: Path, base_model: str) -> None:
        native.save(
            backbone.model, directory, method=config.method.name, settings=settings(config),
            head=backbone.head, base_model=base_model,
        )  # fmt: skip

    def load(backbone: Backbone, directory: Path) -> None:
        native.load(backbone.model, directory)

    return Method(attach, save, load, merge, peft=False, files=(native.CONFIG, native.WEIGHTS))


def _prompt(kind: prompts.Kind) -> Method:
    def attach(backbone: Backbone, config: Config) -> None:
        prompts.attach(
            backbone.model, head=backbone.head, kind=kind, tokens=config.prompt.tokens, hidden=config.prompt.hidden,
            seed=config.init_seed,
        )  # fmt: skip

    def save(backbone: Backbone, _config: Config, directory: Path, base_model: str) -> None:
        peft_prompt.save(backbone.model, directory, head=backbone.head, base_model=base_model)

    def load(backbone: Backbone, directory: Path) -> None:
        peft_prompt.load(backbone.model, directory)

    return Method(attach, save, load, merge=None)


def _lora_and_prefix() -> Method:
    """LoRA with a prefix: the folder holds LoRA and the head, its subfolder `prefix` the prefix; PEFT can read each."""
    prefix = _prompt("prefix")

    def attach(backbone: Backbone, config: Config) -> None:
        _lora(backbone, config)
        prefix.attach(backbone, config)

    def save(backbone: Backbone, config: Config, directory: Path, base_model: str) -> None:
        _save_peft(backbone, config, directory, base_model)
        prefix.save(backbone, config, directory / "prefix", base_model)

    def load(backbone: Backbone, directory: Path) -> None:
        prefix.load(backbone, directory / "prefix")
        _load_peft(backbone, directory)

    files = (*_PEFT_FILES, *(f"prefix/{name}" for name in _PEFT_FILES))
    return Method(attach, save, load, merge=None, peft=False, files=files)


CATALOGUE: dict[str, Method] = {
    "lora": Method(_lora),
    "head": Method(_nothing),
    "full": Method(_full, _save_model, _load_model, whole=True, files=("config.json", "model*.safetensors*")),
    "bitfit": Method(_bitfit),
    "houlsby": _own(_bottleneck("houlsby"), _bottleneck_settings, merge=None),
    "pfeiffer": _own(_bottleneck("pfeiffer"), _bottleneck_settings, merge=None),
    "prefix": _prompt("prefix"),
    "prompt": _prompt("prompt"),
    "p_tuning": _prompt("p_tuning"),
    "intrinsic": _own(_intrinsic, _intrinsic_settings, merge=_merge_intrinsic),
    "lora_prefix": _lora_and_prefix(),
}
