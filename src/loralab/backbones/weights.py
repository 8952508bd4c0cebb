"""Reads a source's config and weights with transformers; every defect raises a one-line UserError."""

import contextlib
import pickle
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from loralab.backbones import tiny
from loralab.backbones.budget import within
from loralab.backbones.reading import reading
from loralab.backbones.source import Source
from loralab.compat import transformers as compat
from loralab.errors import UserError
from loralab.imports import without_collection

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["attention_of", "quiet", "read_config", "read_weights"]


# By the names that most families give them; config.attribute_map translates.
_SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
)


def read_config(source: Source, *, dropout: float, pad_id: int | None) -> "PretrainedConfig":
    """The config of the source, with `dropout` for every dropout probability and the cache of keys and values off."""
    from transformers import AutoConfig

    if source.directory is None:
        config = AutoConfig.for_model(**tiny.architecture(source.name))
    else:
        with reading(source, "the config cannot be read"):
            config = AutoConfig.from_pretrained(source.directory, local_files_only=True, trust_remote_code=False)
            _check_sizes(config, source)
    with reading(source, "the config cannot be read"):
        config.use_cache = False  # a text is read once; generation turns the cache on
        config.return_dict = True
        config.output_attentions = config.output_hidden_states = False
        if getattr(config, "chunk_size_feed_forward", 0):  # the same numbers, at any number of tokens
            config.chunk_size_feed_forward = 0
        _check_pad(config, pad_id, source)
        config.pad_token_id = pad_id
        _set_dropout(config, dropout)
    return config


def _check_pad(config: Any, pad_id: int | None, source: Source) -> None:
    """Raises UserError where the tokenizer's pad token has no row in the embedding table."""
    rows = getattr(config.get_text_config(), "vocab_size", None)
    if pad_id is not None and rows is not None and pad_id >= rows:
        raise UserError(
            f"{source.key}: {source.directory}: the tokenizer's pad token has id {pad_id}, and the embedding table has "
            f"{rows:,} rows (ids 0 to {rows - 1}); name a token of the model as pad_token in tokenizer_config.json, or "
            "call model.resize_token_embeddings(len(tokenizer)) and save the checkpoint again"
        )


def _check_sizes(config: Any, source: Source) -> None:
    """Raises UserError where a size of the config, by any family's name for it, is below 1."""
    values = config.to_dict()
    for name in _SIZES:
        own = config.attribute_map.get(name, name)
        size = values.get(own)
        if type(size) is int and size < 1:
            raise UserError(f"{source.key}: {source.directory}/config.json: {own}: got {size}; it must be at least 1")


def _set_dropout(config: "PretrainedConfig", dropout: float, *, numbers: Any = int | float) -> None:
    """Sets every dropout probability of the config; LayerDrop (skipped layers) is always off.

    Also those of a composite model's parts, but for whole numbers there: MPT's field takes no other.
    """
    from transformers import PretrainedConfig

    for part in vars(config).values():
        if isinstance(part, PretrainedConfig):
            _set_dropout(part, dropout, numbers=float)
    for key, value in config.to_dict().items():
        if ("dropout" in key or key.endswith("pdrop")) and isinstance(value, numbers) and type(value) is not bool:
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
    dtype: torch.dtype | None,
) -> tuple[Any, frozenset[str]]:
    """The model in `dtype`, and the names of the tensors that the checkpoint lacks or has in another shape.

    dtype: None for the checkpoint's own.
    """
    if source.directory is None:
        torch.manual_seed(tiny.WEIGHT_SEED)
        model = compat.random_model(model_class, config, implementation).to(dtype or torch.float32)
        prefix = f"{model.base_model_prefix}."
        return model, frozenset(name for name, _ in model.named_parameters() if not name.startswith(prefix))
    size = sum(path.stat().st_size for path in source.directory.iterdir() if path.suffix in (".safetensors", ".bin"))
    with (
        reading(source, "the weights cannot be loaded"),
        within(size, where=f"{source.key}: {source.directory}"),
    ):
        try:
            model, info = model_class.from_pretrained(
                source.directory,
                config=config,
                attn_implementation=implementation,
                dtype=dtype or "auto",
                use_safetensors=source.safetensors,
                weights_only=True,
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        except pickle.UnpicklingError as error:
            raise UserError(
                f"{source.key}: {source.directory}: the .bin weights are damaged, or hold Python objects beside "
                "tensors, which are never unpickled; save the model as safetensors"
            ) from error
    mismatched = {name for name, *_ in info["mismatched_keys"]}
    return model, frozenset(info["missing_keys"]) | mismatched


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
