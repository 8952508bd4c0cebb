"""Virtual tokens in PEFT's format on disk: `prompt_embeddings` and the head. Written and read without importing peft.

The file holds the encoder's output (an MLP is folded into its vectors), as in PEFT.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from loralab.errors import UserError
from loralab.files import write_bytes, write_json
from loralab.methods.formats.peft_config import (
    ANYTHING,
    CONFIG,
    NAMES,
    REQUIRED,
    TASK,
    TEXT,
    WEIGHTS,
    Field,
    PeftConfig,
    count,
    read_config,
)
from loralab.methods.formats.tensor_file import read_tensors
from loralab.methods.prompts import Prefix, VirtualTokens, virtual_tokens

__all__ = ["load", "save"]

VECTORS = "prompt_embeddings"
PREFIX = "base_model."  # PEFT's virtual tokens do not wrap the backbone, so this is shorter than LoRA's
TYPES = {"prefix": "PREFIX_TUNING", "prompt": "PROMPT_TUNING", "p_tuning": "P_TUNING"}
HEADER = ("peft_type", "auto_mapping", "inference_mode", "peft_version", "revision")
FIELDS: dict[str, Field] = {
    "num_virtual_tokens": Field(count, "a whole number from 1", REQUIRED),
    "num_transformer_submodules": Field(lambda n: count(n) and n == 1, "1: of an encoder and decoder, not both", 1),
    "num_layers": Field(count, "a whole number from 1"),
    "num_attention_heads": Field(count, "a whole number from 1"),
    "modules_to_save": NAMES,
    "token_dim": Field(count, "a whole number from 1"),
    "base_model_name_or_path": TEXT,
    "task_type": TASK,
    **dict.fromkeys(HEADER, ANYTHING),
}
OWN = {  # settings of encoders, whose output alone is in the file, and of how the vectors start
    "prefix": ("encoder_hidden_size", "prefix_projection", "init_weights"),
    "prompt": ("prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path", "tokenizer_kwargs"),
    "p_tuning": (*("encoder_reparameterization_type", "encoder_hidden_size", "encoder_num_layers", "encoder_dropout"),),
}
TABLES = {TYPES[kind]: FIELDS | dict.fromkeys(own, ANYTHING) for kind, own in OWN.items()}
"""The fields that each type may have. Any other is refused unless its value is null, false or empty."""


def save(model: Any, directory: Path, *, head: Sequence[str], base_model: str) -> None:
    """Writes adapter_config.json and adapter_model.safetensors, which `peft.PeftModel.from_pretrained` loads.

    The file holds the vectors (tokens, width) and the whole head (`modules_to_save`), in fp32. Each file is written
    atomically, the weights last. base_model: the name or path that PEFT loads the backbone by.
    """
    from safetensors.torch import save as as_bytes

    virtual = _virtual(model)
    with torch.no_grad():
        tensors = {VECTORS: virtual.vectors(), **{PREFIX + name: value for name, value in _whole(model, head).items()}}
    write_json(directory / CONFIG, _config(model, virtual, tensors[VECTORS].shape[1], head, base_model))
    content = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    write_bytes(directory / WEIGHTS[0], as_bytes(content, metadata={"format": "pt"}))


def load(model: Any, directory: Path) -> None:
    """Loads the virtual tokens and the head of `directory` into a `model` with virtual tokens (`prompts.attach`).

    The vectors replace the encoder and are frozen: the model is for inference.
    Raises UserError if the directory has no virtual tokens or does not fit the model; the model is then unchanged.
    """
    virtual = _virtual(model)
    config = read_config(directory, TABLES, what=f"virtual tokens are {', '.join(TYPES.values())}")
    file = read_tensors(directory, WEIGHTS, (CONFIG, WEIGHTS[0]))
    _check_kind(config, virtual)
    modules = dict(model.named_modules())
    own = _whole(model, [name for name in dict.fromkeys(config.saved) if name in modules])
    with torch.no_grad():
        wanted = {VECTORS: virtual.vectors(), **{PREFIX + name: value for name, value in own.items()}}
    for key in sorted(wanted.keys() | file.keys()):
        here, there = (tuple(t[key].shape) if key in t else "none" for t in (wanted, file))
        if here != there:
            raise UserError(f"{directory}: it does not fit the model: {key}: {there} in the file, {here} in the model")
    virtual.settle(file[VECTORS])
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(file[PREFIX + name])


def _check_kind(config: PeftConfig, virtual: VirtualTokens) -> None:
    """Raises UserError where vectors of the model's shape would be read as others: of another type, layers or heads."""
    if config.kind != TYPES[virtual.kind]:
        raise UserError(f"{config.directory}: its adapter is {config.kind}, the model's {TYPES[virtual.kind]}")
    own = {"num_virtual_tokens": virtual.tokens}
    if isinstance(virtual, Prefix):
        own |= {"num_layers": virtual.layers, "num_attention_heads": virtual.heads}
    for field, value in own.items():
        if config[field] not in (None, value):
            raise config.refuse(field, f"got {config[field]}; the model has {value}")


def _virtual(model: nn.Module) -> VirtualTokens:
    found = virtual_tokens(model)
    assert found is not None, "the model has no virtual tokens: prompts.attach comes first"
    return found


def _whole(model: nn.Module, head: Sequence[str]) -> dict[str, Tensor]:
    """The head's tensors, which share their storage with the model's, by their names in the backbone."""
    return {f"{path}.{key}": t for path in head for key, t in model.get_submodule(path).state_dict().items()}


def _config(model: Any, virtual: VirtualTokens, width: int, head: Sequence[str], base_model: str) -> dict[str, Any]:
    layers, heads = model.config.num_hidden_layers, model.config.num_attention_heads
    if isinstance(virtual, Prefix):
        width, layers, heads = width // (2 * virtual.layers), virtual.layers, virtual.heads
    own: dict[str, dict[str, Any]] = {
        "prefix": {"prefix_projection": False, "encoder_hidden_size": None},
        "prompt": {"prompt_tuning_init": "RANDOM"},
        "p_tuning": {"encoder_reparameterization_type": "MLP", "encoder_hidden_size": width},
    }
    return {
        "peft_type": TYPES[virtual.kind],
        "task_type": "CAUSAL_LM" if model.can_generate() else "SEQ_CLS",
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "num_virtual_tokens": virtual.tokens,
        "token_dim": width,
        "num_transformer_submodules": 1,
        "num_attention_heads": heads,
        "num_layers": layers,
        "modules_to_save": list(head) or None,
        **own[virtual.kind],
    }
