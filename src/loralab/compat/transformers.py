"""What is private in transformers, or differs between its 5.x releases.

Written for 5.0.0, 5.10.4, 5.17.0, 5.23.0 and 5.24.0.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

__all__ = [
    "attention_function",
    "cache_in",
    "cache_name",
    "checkpoint_layers",
    "classifiers",
    "conv1d",
    "dequantised",
    "extended",
    "filled_cache",
    "generates",
    "generators",
    "has_sdpa",
    "initialise",
    "kept_in_fp32",
    "random_model",
    "register_attention",
]

# A forward's argument for the keys and values of earlier tokens: since 5.24, and before.
_CACHE_NAMES = ("cache", "past_key_values")

Attention = Callable[..., tuple[Tensor, Tensor | None]]


def cache_name(model: Any) -> str | None:
    """The name by which the model's forward takes keys and values of earlier tokens; None where it takes none."""
    for owner in (model, model.base_model):
        parameters = inspect.signature(type(owner).forward).parameters
        for name in _CACHE_NAMES:
            if name in parameters:
                return name
    return None


def cache_in(named: Mapping[str, Any]) -> Any:
    """The cache among the keyword arguments of a forward call, by whichever name; None where there is none."""
    return next((named[name] for name in _CACHE_NAMES if named.get(name) is not None), None)


def filled_cache(keys_values: Iterable[tuple[Tensor, Tensor]]) -> Any:
    """A cache that holds keys and values (b, heads, t, d) already, a pair for each layer."""
    from transformers import DynamicCache

    cache = DynamicCache()
    for layer, (keys, values) in enumerate(keys_values):
        cache.update(keys, values, layer)
    return cache


def extended(cache: Any, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """Keys and values of a layer with those that the cache holds before them; the cache then holds all."""
    own = getattr(cache, "self_attention_cache", cache)  # of an EncoderDecoderCache
    found: tuple[Tensor, Tensor] = own.update(keys, values, layer)
    return found


def checkpoint_layers(model: Any) -> None:
    """Gradient checkpointing of every layer, without torch's reentrant autograd; a ValueError where there is none.

    5.24 renamed it.
    """
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def blocks(model: nn.Module) -> list[nn.Module]:
    """The parts that a model runs one after the other, such as its layers; none where transformers names none."""
    names = getattr(model, "_no_split_modules", None) or ()  # of classes; a list before transformers 5, a set since
    return [module for module in model.modules() if type(module).__name__ in names]


def attention_function(module: nn.Module, eager: Attention) -> Attention:
    """The attention function that the module's config names: a registered one, or `eager`.

    Called as f(module, q, k, v, mask, scaling=..., dropout=...); q, k, v (b, heads, t, d), the output (b, t, heads, d).
    """
    from transformers import AttentionInterface

    name: str = module.config._attn_implementation  # type: ignore[union-attr,assignment]  # torch types attributes so
    return eager if name == "eager" else AttentionInterface()[name]


def register_attention(name: str, function: Attention) -> None:
    """Makes `function` an attention implementation that `set_attn_implementation` knows, with eager's masks."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, eager_mask)


def dequantised(model: Any) -> Any:
    """The model that was read from a GGUF file, as one that can be saved and trained; its weights are plain numbers."""
    vars(model.config).pop("quantization_config", None)
    model.hf_quantizer = None
    return model


def has_sdpa(model_class: Any) -> bool:
    """Whether a family's classes have scaled-dot-product attention."""
    return bool(model_class._supports_sdpa)


def random_model(model_class: Any, config: Any, attention: str) -> Any:
    """A model of a config, in fp32, with weights drawn from torch's default generator."""
    return model_class._from_config(config, attn_implementation=attention, dtype=torch.float32)


def initialise(model: Any, module: nn.Module) -> None:
    """Initialises the tensors of a module as its model family does, from torch's default generator."""
    for parameter in module.parameters():
        vars(parameter).pop("_is_hf_initialized", None)  # else transformers' initialisers skip it
    for part in reversed(list(module.modules())):
        model._init_weights(part)


def kept_in_fp32(model: Any, dtype: torch.dtype) -> list[str]:
    """The parts of its modules' names by which a family keeps weights in fp32 in a model of `dtype` (T5's `wo`)."""
    if dtype == torch.float32:
        return []
    kept = set(model._keep_in_fp32_modules_strict or ())
    if dtype == torch.float16:
        kept |= set(model._keep_in_fp32_modules or ())
    return sorted(kept)


def classifiers() -> Mapping[Any, Any]:
    """Config class -> sequence classifier."""
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    found: Mapping[Any, Any] = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    return found


def generators(*, seq2seq: bool) -> Mapping[Any, Any]:
    """Config class -> the decoder, or the encoder with a decoder, that generates."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING

    found: Mapping[Any, Any] = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING if seq2seq else MODEL_FOR_CAUSAL_LM_MAPPING
    return found


def generates(model_type: str, *, seq2seq: bool) -> bool:
    """Whether a model type has a class that reads a text and generates another (seq2seq), or that continues a text.

    A masked language model may have the latter too (BertLMHeadModel), but reads in both directions: it does not count.
    """
    from transformers.models.auto import modeling_auto as auto

    if seq2seq:
        return model_type in auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    masked = auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return model_type in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and model_type not in masked


def conv1d() -> type[nn.Module]:
    """GPT-2's linear map, which keeps its weight as (d_in, d_out); nn.Linear in a release without it."""
    try:
        from transformers.pytorch_utils import Conv1D
    except ImportError:
        return nn.Linear
    return cast(type[nn.Module], Conv1D)
