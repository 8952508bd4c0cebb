"""Virtual tokens in PEFT's format on disk: `prompt_embeddings` and the head. Written and read without importing peft.

The file holds the encoder's output (an MLP is folded into its vectors), as in PEFT.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from loralab.errors import UserError
from loralab.files import write_bytes, write_json
from loralab.methods.prompts import Prefix, VirtualTokens, virtual_tokens

__all__ = ["load", "save"]

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
VECTORS = "prompt_embeddings"
PREFIX = "base_model."  # PEFT's virtual tokens do not wrap the backbone, so this is shorter than LoRA's
TYPES = {"prefix": "PREFIX_TUNING", "prompt": "PROMPT_TUNING", "p_tuning": "P_TUNING"}


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
    write_bytes(directory / WEIGHTS, as_bytes(content, metadata={"format": "pt"}))


def load(model: Any, directory: Path) -> None:
    """Loads the virtual tokens and the head of `directory` into a `model` with virtual tokens (`prompts.attach`).

    The vectors replace the encoder and are frozen: the model is for inference.
    Raises UserError if the directory has no virtual tokens or does not fit the model; the model is then unchanged.
    """
    virtual = _virtual(model)
    config, file = _read(directory)
    if config["peft_type"] != TYPES[virtual.kind]:
        raise UserError(f"{directory}: its adapter is {config['peft_type']}, the model's {TYPES[virtual.kind]}")
    own = _whole(model, config.get("modules_to_save") or ())
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


def _read(directory: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for file in (directory / CONFIG, directory / WEIGHTS):
        if not file.is_file():
            raise UserError(f"{directory}: no {file.name} there; virtual tokens in PEFT format are {CONFIG}, {WEIGHTS}")
    try:
        config: dict[str, Any] = json.loads((directory / CONFIG).read_text())
        if config["peft_type"] not in TYPES.values():
            raise UserError(
                f"{directory}: a {config['peft_type']} adapter; virtual tokens are {', '.join(TYPES.values())}"
            )
        return config, load_file(directory / WEIGHTS)
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{directory}: its {CONFIG} or {WEIGHTS} is damaged ({error})") from error
