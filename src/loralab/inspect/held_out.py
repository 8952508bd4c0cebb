"""-log p of English that no run trains on, under a run's language model and under its backbone: what training forgot.

Perplexity is the exponential of the mean per token (Biderman et al. 2024 measure forgetting on the pretraining domain).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from loralab import tasks
from loralab.backbones.load import load_generator
from loralab.errors import UserError
from loralab.runs.plan import replan
from loralab.store.run_directory import RunDirectory, status
from loralab.tasks import GENERATION
from loralab.tasks.settings import TaskSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["backbone_of", "prose", "text_losses"]

ROWS_AT_ONCE = 10  # texts in a batch: 64 tokens of 49,152 logits each in fp32 are 126 MB

Losses = tuple[NDArray[np.float64], NDArray[np.int64]]


def prose(count: int) -> list[str]:
    """The first `count` reviews of IMDb's test split, in its fixed order.

    They are prose with case and punctuation, as web text has; TREC's questions resemble those of task=sql, Rotten
    Tomatoes is in lower case and split into words, and the pairs of films' lines are a task of their own.
    """
    return [text for (text, *_) in tasks.read(TaskSettings(name="imdb")).splits["test"].texts[:count]]


def text_losses(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], *, tokens: int
) -> Losses:
    """Of each text: the sum of -log p over its tokens given those before them, and their number.

    Only the first `tokens` tokens of a text count, of which the first is not predicted. The model reads them from the
    left without special tokens; it is put in eval mode.
    """
    model.eval()
    encoded = [
        tokenizer(text, add_special_tokens=False, truncation=True, max_length=tokens)["input_ids"] for text in texts
    ]
    sums, numbers = [], []
    for start in range(0, len(encoded), ROWS_AT_ONCE):
        ids, real = _padded(encoded[start : start + ROWS_AT_ONCE])
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=real).logits[:, :-1].float()
        losses: Any = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        told = real[:, 1:]
        sums += (losses.view_as(told).double() * told).sum(1).tolist()
        numbers += told.sum(1).tolist()
    return np.array(sums, dtype=np.float64), np.array(numbers, dtype=np.int64)


def backbone_of(run: RunDirectory) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """The language model that a finished generation run began with, in fp32 on the CPU, and its tokenizer.

    Raises UserError for another run, as a classifier has no output embeddings.
    """
    record = run.finished()
    if record is None:
        raise UserError(f"{run.path.name}: no finished run ({status(run)}); its backbone is not known")
    planned = replan(run, record)
    name = planned.config.task.name
    if name not in GENERATION:
        raise UserError(
            f"{run.path.name}: task={name} trains a classifier, which gives no probabilities of text; "
            f"allowed: {', '.join(GENERATION)}"
        )
    settings: dict[str, Any] = {"dropout": 0.0, "attention": "auto", "dtype": torch.float32, "device": "cpu"}
    backbone = load_generator(planned.source, **settings)
    return backbone.model, backbone.tokenizer


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids and mask (rows, tokens), padded on the right with token 0, which the mask hides."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    real = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, real
