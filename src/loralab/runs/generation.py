"""The objective of generation tasks: the loss is over the target's tokens only, the metrics are over text."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from loralab import tasks
from loralab.runs.objective import Predictor
from loralab.store.answers import Sample
from loralab.store.predictions import write_answers
from loralab.tasks.splits import Pairs
from loralab.tasks.tokenise_pairs import IGNORED, PairSplit, collate_contexts, collate_training
from loralab.text import finite
from loralab.training.batches import by_length
from loralab.training.generate import decode
from loralab.training.likelihood import token_losses

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Predicted", "TextObjective"]

# Examples per evaluation batch; a constant, since the shape of a batch affects the last bits of a logit.
EVALUATION_BATCH = 32
# Test questions whose answers before and after training are shown: as many as fit on a screen.
SAMPLES = 3


@dataclass(frozen=True)
class Predicted:
    """For each row: the generated text, the sum of -log p over its target's tokens, and their number."""

    texts: list[str]
    losses: NDArray[np.float64]
    tokens: NDArray[np.int64]


class TextObjective:
    """One generated text per context, from a decoder or an encoder-decoder (`seq2seq`).

    at_targets: whether the model is asked for logits at the targets' positions only, as (targets, vocabulary).
    """

    def __init__(
        self,
        task: tasks.RawTask[Pairs],
        splits: Mapping[str, PairSplit],
        tokenizer: "PreTrainedTokenizerBase",
        *,
        seq2seq: bool,
        at_targets: bool,
        start_id: int,
        beams: int,
        length_penalty: float,
        max_new_tokens: int,
        device: torch.device,
    ) -> None:
        self.task, self.splits, self.tokenizer, self.device = task, splits, tokenizer, device
        self.seq2seq, self.at_targets, self.start_id = seq2seq, at_targets, start_id
        self.decoding: dict[str, Any] = {
            "beams": beams,
            "length_penalty": length_penalty,
            "max_new_tokens": max_new_tokens,
        }
        self.pad_id = cast(int, tokenizer.pad_token_id)
        self.metric = task.metrics[0]

    def rows(self) -> dict[str, int]:
        return {split: len(rows) for split, rows in self.splits.items()}

    def lengths(self, split: str) -> NDArray[np.int64]:
        return self.splits[split].lengths

    def whole(self, split: str) -> NDArray[np.int64]:
        return self.splits[split].whole

    def batch(self, split: str, indices: NDArray[np.int64]) -> dict[str, Tensor]:
        batch = collate_training(
            self.splits[split], indices, pad_id=self.pad_id, seq2seq=self.seq2seq, start_id=self.start_id
        )
        if self.at_targets:
            batch["logits_to_keep"] = batch["labels"] != IGNORED
        return self._placed(batch)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy of logits (batch, tokens, vocabulary) or (targets, vocabulary); mean over the targets."""
        if logits.ndim == 2:
            return nn.functional.cross_entropy(logits, labels[labels != IGNORED])
        return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)

    def predict(self, split: str, by: Predictor) -> Predicted:
        rows = len(self.splits[split])
        order = by_length(self.lengths(split), batch_size=EVALUATION_BATCH)
        losses, tokens = token_losses(
            by.model, order, lambda at: self.batch(split, at),
            rows=rows, check=by.check, workers=by.workers, ranks=by.ranks,
        )  # fmt: skip
        return Predicted(self._answers(split, order, by), losses, tokens)

    def samples(self, split: str, by: Predictor) -> list[Sample]:
        return self._samples(split, self._answers(split, [self._sampled(split)], by))

    def samples_in(self, split: str, predictions: Predicted) -> list[Sample]:
        return self._samples(split, predictions.texts)

    def scores(self, split: str, predictions: Predicted) -> dict[str, float | None]:
        """The task's metrics, and the loss: the mean over all target tokens of the split."""
        loss = float(predictions.losses.sum() / predictions.tokens.sum())
        found = tasks.score_texts(self.task.metrics, predictions.texts, self._pairs(split), loss=loss)
        return {**found, "loss": finite(loss)}

    def start(self, split: str) -> float:  # noqa: ARG002
        """Unknown: it depends on the backbone."""
        return 0.0

    def write(self, path: Path, predictions: Mapping[str, Mapping[str, Predicted]]) -> None:
        correct = {
            at: {s: tasks.correct(self.metric, p.texts, self._pairs(s)) for s, p in by_split.items()}
            for at, by_split in predictions.items()
        }
        write_answers(path, predictions, correct, {split: self._pairs(split) for split in self.splits})

    def _answers(self, split: str, order: Iterable[NDArray[np.int64]], by: Predictor) -> list[str]:
        """The generated text of each row of a split; empty for a row that is in no batch of `order`."""
        answers = decode(
            by.model, order, lambda at: self._contexts(split, at),
            rows=len(self.splits[split]), **self.decoding, eos_id=cast(int, self.tokenizer.eos_token_id),
            pad_id=self.pad_id, check=by.check, workers=by.workers, ranks=by.ranks,
        )  # fmt: skip
        # no clean-up: it would remove the space in `a , b`, which references keep
        texts = self.tokenizer.batch_decode(answers, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return [text.strip() for text in texts]

    def _sampled(self, split: str) -> NDArray[np.int64]:
        """SAMPLES rows, evenly spaced: the questions about one table of task=sql follow one another."""
        rows = len(self.splits[split])
        return np.unique(np.arange(SAMPLES, dtype=np.int64) * rows // SAMPLES)

    def _samples(self, split: str, texts: Sequence[str]) -> list[Sample]:
        at = self._sampled(split)
        pairs, answers = self._pairs(split).take(at), [texts[i] for i in at]
        right = tasks.correct(self.metric, answers, pairs)
        return [
            {
                "row": int(pairs.rows[i]),
                "question": pairs.contexts[i],
                "reference": pairs.references[i][0],
                "answer": answer,
                "correct": None if right is None else bool(right[i]),
            }
            for i, answer in enumerate(answers)
        ]

    def _contexts(self, split: str, indices: NDArray[np.int64]) -> dict[str, Tensor]:
        return self._placed(collate_contexts(self.splits[split], indices, pad_id=self.pad_id, left=not self.seq2seq))

    def _placed(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}

    def _pairs(self, split: str) -> Pairs:
        return self.task.splits[split]
