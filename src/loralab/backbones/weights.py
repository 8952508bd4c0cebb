"""Reads a source's config and weights with transformers; every defect raises a one-line UserError."""

import contextlib
import pickle
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from loralab.backbones import tiny
from loralab.backbones.source import Source
from loralab.compat import transformers as compat
from loralab.errors import UserError
from loralab.imports import without_collection

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["attention_of", "one_line", "quiet", "read_config", "read_weights"]


def read_config(source: Source, *, dropout: float, pad_id: int | None) -> "PretrainedConfig":
    """The config of the source, with `dropout` for every dropout probability and the cache of keys and values off."""
    from transformers import AutoConfig

    if source.directory is None:
        config = AutoConfig.for_model(**tiny.architecture(source.name))
    else:
        config = AutoConfig.from_pretrained(source.directory, local_files_only=True, trust_remote_code=False)
    config.use_cache = False  # a text is read once; generation turns the cache on
    config.pad_token_id = pad_id
    _set_dropout(config, dropout)
    return config


def _set_dropout(config: "PretrainedConfig", dropout: float) -> None:
    """Sets every dropout probability of the config; LayerDrop (skipped layers) is always off."""
    for key, value in config.to_dict().items():
        if ("dropout" in key or key.endswith("pdrop")) and isinstance(value, int | float) and type(value) is not bool:
            setattr(config, key, dropout)
        elif key.endswith("layerdrop"):
            setattr(config, key, 0.0)


def attention_of(model_class: Any, wanted: str, device: torch.device, source: Source) -> str:
    has_sdpa = compat.has_sdpa(model_class)
    if wanted == "auto":
        return "sdpa" if has_sdpa and device.type != "cpu" else "eager"
    if wanted == "sdpa" and not has_sdpa:
        raise UserError(
            f"model.attention: 'sdpa' is not available for {source.family!r} models; allowed: eager, auto (eager here)"
        )
    return wanted


def read_weights(
    source: Source,
    model_class: Any,
    config: "PretrainedConfig",
    implementation: str,
    dtype: torch.dtype,
) -> tuple[Any, frozenset[str]]:
    """The model, and the names of the tensors that the checkpoint lacks or has in another shape."""
    if source.directory is None:
        torch.manual_seed(tiny.WEIGHT_SEED)
        model = compat.random_model(model_class, config, implementation).to(dtype)
        prefix = f"{model.base_model_prefix}."
        return model, frozenset(name for name, _ in model.named_parameters() if not name.startswith(prefix))
    try:
        model, info = model_class.from_pretrained(
            source.directory,
            config=config,
            attn_implementation=implementation,
            dtype=dtype,
            use_safetensors=source.safetensors,
            weights_only=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{source.key}: {source.directory}: the .bin weights are damaged, or hold Python objects beside tensors, "
            "which are never unpickled; save the model as safetensors"
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise UserError(f"{source.key}: {source.directory}: the weights cannot be loaded: {one_line(error)}") from error
    mismatched = {name for name, *_ in info["mismatched_keys"]}
    return model, frozenset(info["missing_keys"]) | mismatched


def one_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Turns off load reports, progress bars and warnings of transformers, and restores its settings afterwards."""
    with without_collection():
        from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.ERROR)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
