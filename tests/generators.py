"""One tiny random generator per family of causal or sequence-to-sequence models, with their own heads."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

from loralab.backbones.families import kind_of
from tests.families import ALL, MODEL_TYPES, PAD, VOCABULARY

__all__ = ["CAUSAL", "EOS", "EVERY_GENERATOR", "GENERATORS", "contexts", "pairs"]

CAUSAL = ("gpt2", "gpt_neox", "opt", "llama", "qwen2")
EOS = 2


def _build(family: str) -> PreTrainedModel:
    config = ALL[family]().config
    of_family: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model: PreTrainedModel = of_family.from_config(config, attn_implementation="eager", dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))  # with initial weights all repeat one token
    return model.eval()


GENERATORS: dict[str, Callable[[], PreTrainedModel]] = {family: partial(_build, family) for family in (*CAUSAL, "t5")}
EVERY_GENERATOR: dict[str, Callable[[], PreTrainedModel]] = {
    family: partial(_build, family) for family, name in MODEL_TYPES.items() if kind_of(name) != "encoder"
}
"""Those of the whole table: what a row decides is tested on them."""


def _texts(seed: int, rows: int, longest: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, longest + 1, (rows,), generator=generator).tolist()
    return [torch.randint(3, VOCABULARY, (n,), generator=generator).tolist() for n in lengths]


def _padded(texts: list[list[int]], *, left: bool, value: int) -> Tensor:
    width = max(map(len, texts))
    fill = [[value] * (width - len(text)) for text in texts]
    return torch.tensor([f + t if left else t + f for f, t in zip(fill, texts, strict=True)])


def contexts(rows: int, *, left: bool) -> Callable[[NDArray[np.int64]], dict[str, Tensor]]:
    """indices -> the contexts of these rows, 2 to 9 tokens long, padded to the longest."""
    texts = _texts(0, rows, 9)

    def fetch(indices: NDArray[np.int64]) -> dict[str, Tensor]:
        chosen = [texts[i] for i in indices]
        mask = [[1] * len(text) for text in chosen]
        return {
            "input_ids": _padded(chosen, left=left, value=PAD),
            "attention_mask": _padded(mask, left=left, value=0),
        }

    return fetch


def pairs(rows: int, *, seq2seq: bool) -> Callable[[NDArray[np.int64]], dict[str, Tensor]]:
    """indices -> these rows as training batches: contexts of 2 to 9 tokens, targets of 2 to 7 tokens and eos."""
    texts, targets = _texts(0, rows, 9), [[*target, EOS] for target in _texts(1, rows, 7)]

    def fetch(indices: NDArray[np.int64]) -> dict[str, Tensor]:
        at = [(texts[i], targets[i]) for i in indices]
        if seq2seq:
            read, labels = [context for context, _ in at], [target for _, target in at]
        else:
            read = [(context + target)[:-1] for context, target in at]
            labels = [[-100] * (len(context) - 1) + target for context, target in at]
        batch = {
            "input_ids": _padded(read, left=False, value=PAD),
            "attention_mask": _padded([[1] * len(text) for text in read], left=False, value=0),
            "labels": _padded(labels, left=False, value=-100),
        }
        if seq2seq:
            started = [[0, *target[:-1]] for _, target in at]
            batch["decoder_input_ids"] = _padded(started, left=False, value=PAD)
        return batch

    return fetch
