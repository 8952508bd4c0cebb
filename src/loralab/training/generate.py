"""The text that a model generates after each context of a split, greedily or by beam search, in the split's order."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from loralab.training.distributed import ALONE, Ranks
from loralab.training.evaluate import in_batches
from loralab.training.threads import Workers

__all__ = ["decode"]

# Parameters from which each worker writes batches of its own. Below, most of a token's time is Python's, and threads
# would wait for one another; a token of SmolLM2-135M (134.5M, 32 texts) spends 84% of its CPU time in matrix products,
# copies and sums, which other threads need not wait for.
THREADED = 50_000_000


def decode(
    model: Any,
    order: Iterable[NDArray[np.int64]],
    fetch: Callable[[NDArray[np.int64]], dict[str, Tensor]],
    *,
    rows: int,
    beams: int,
    length_penalty: float,
    max_new_tokens: int,
    eos_id: int,
    pad_id: int,
    check: Callable[[], Any],
    workers: Workers,
    ranks: Ranks = ALONE,
) -> list[list[int]]:
    """The new tokens of every row, without the eos that ends them, by transformers' `generate`, without sampling.

    fetch: indices -> input_ids and attention_mask of their contexts on the model's device, padded on the left for a
    decoder and on the right for an encoder-decoder. beams: 1 is greedy; a beam's score is its log p over
    length^length_penalty. order, check and ranks as in `predict`; workers too, but a small model has one thread.
    """
    from transformers import GenerationConfig

    penalty = {"length_penalty": length_penalty} if beams > 1 else {}  # transformers warns of it without beams
    settings = GenerationConfig(
        do_sample=False,
        num_beams=beams,
        max_new_tokens=max_new_tokens,
        eos_token_id=eos_id,
        pad_token_id=pad_id,
        decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
        use_cache=True,
        **penalty,
    )

    def of_batch(indices: NDArray[np.int64]) -> list[list[int]]:
        batch = fetch(indices)
        with ranks.without_gradients():
            written = model.generate(**batch, generation_config=settings, synced_gpus=ranks.in_step)
        start = 1 if model.config.is_encoder_decoder else batch["input_ids"].shape[1]
        return [_up_to(eos_id, tokens) for tokens in written[:, start:].tolist()]

    out: list[list[int]] = [[] for _ in range(rows)]
    large = sum(parameter.numel() for parameter in model.parameters()) >= THREADED
    with nullcontext(workers) if large else Workers(1) as threads:
        found = in_batches(model, order, of_batch, check=check, workers=threads, ranks=ranks)
    for indices, texts in found:
        for row, tokens in zip(indices, texts, strict=True):
            out[row] = tokens
    return out


def _up_to(eos_id: int, tokens: list[int]) -> list[int]:
    """The tokens before the first eos; after it there is only padding."""
    return tokens[: tokens.index(eos_id)] if eos_id in tokens else tokens
