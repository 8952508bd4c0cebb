"""GGUF files of tiny Llama-like models with grouped heads, written as llama.cpp's converter does."""

from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf.quants import dequantize, quantize
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode

__all__ = ["CHAT", "END", "HEADS", "KEY_HEADS", "TOKENS", "WIDTH", "tiny_model", "write_gguf"]

WIDTH, HEADS, KEY_HEADS, LAYERS, INNER = 64, 4, 2, 2, 96
MERGES = ("t h", "th e", "i n")
END = "<|im_end|>"
TOKENS = ("<|endoftext|>", "<|im_start|>", END, *bytes_to_unicode().values(), *(m.replace(" ", "") for m in MERGES))
CHAT = "{% for message in messages %}{{ '<|im_start|>' + message['content'] + '<|im_end|>' }}{% endfor %}"


@cache
def tiny_model(family: str = "llama") -> Any:
    """A random model with tied embeddings, with weights that its GGUF file holds exactly."""
    size = 128 if family == "qwen3" else WIDTH // HEADS  # transformers reads no other of Qwen3
    config = AutoConfig.for_model(
        family,
        vocab_size=len(TOKENS), hidden_size=WIDTH, num_hidden_layers=LAYERS, intermediate_size=INNER,
        num_attention_heads=HEADS, num_key_value_heads=KEY_HEADS, head_dim=size, max_position_embeddings=256,
        tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
                parameter.copy_(torch.from_numpy(_rounded(parameter.numpy())))
    return model.eval()


def write_gguf(
    file: Path,
    family: str = "llama",
    *,
    left_out: str | None = None,
    more: dict[str, NDArray[Any]] | None = None,
    architecture: str | None = None,
    tokenizer: str | None = "gpt2",
    settings: dict[str, Any] | None = None,
) -> Path:
    """Writes `tiny_model(family)`, its matrices in blocks of 32 numbers of 4 bits (Q4_1).

    left_out: a tensor that the file lacks; more: tensors beside the model's; architecture: another name of it;
    tokenizer: its kind, None for no tokenizer; settings: whole numbers and texts beside the usual ones.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    model = tiny_model(family)
    writer = gguf.GGUFWriter(file, architecture or family)
    writer.add_name("tiny")
    writer.add_context_length(256)
    writer.add_block_count(LAYERS)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(model.config.head_dim)
    writer.add_key_length(model.config.head_dim)
    if tokenizer is not None:
        writer.add_tokenizer_model(tokenizer)
        writer.add_token_list(TOKENS)
        writer.add_token_types([3, 3, 3, *[1] * (len(TOKENS) - 3)])
        writer.add_token_merges(MERGES)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_pad_token_id(2)
        writer.add_add_bos_token(False)
        writer.add_chat_template(CHAT)
    for key, value in (settings or {}).items():
        writer.add_string(key, value) if isinstance(value, str) else writer.add_uint32(key, value)
    names = gguf.get_tensor_name_map(_architecture(family), LAYERS)
    for path, tensor in model.state_dict().items():
        if path == "lm_head.weight" or path == left_out:  # tied
            continue
        weight = tensor.numpy()
        if family == "llama" and ("q_proj" in path or "k_proj" in path):
            weight = _permuted(weight, HEADS if "q_proj" in path else KEY_HEADS)
        stem, _, suffix = path.rpartition(".")
        _add(writer, f"{names.get_name(stem)}.{suffix}", weight)
    for path, weight in (more or {}).items():
        _add(writer, path, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add(writer: Any, name: str, weight: NDArray[Any]) -> None:
    if weight.ndim == 2:
        writer.add_tensor(name, quantize(weight, _KIND), raw_dtype=_KIND)
    else:
        writer.add_tensor(name, weight.astype(np.float32))


_KIND = gguf.GGMLQuantizationType.Q4_1


def _rounded(weight: NDArray[Any]) -> NDArray[Any]:
    """The weight after blocks of 4 bits."""
    if weight.ndim != 2:
        return weight
    rounded: NDArray[Any] = dequantize(quantize(weight, _KIND), _KIND)
    return rounded


def _permuted(weight: NDArray[Any], heads: int) -> NDArray[Any]:
    """llama.cpp's order of a rotary head's rows: the pairs (i, i + d/2) side by side."""
    return weight.reshape(heads, 2, len(weight) // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def _architecture(family: str) -> Any:
    return next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == family)
