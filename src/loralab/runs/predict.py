"""A finished run's model on new texts: their classes with probabilities, numbers, or answers in text."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from loralab import device, tasks
from loralab.backbones.reading import encoding
from loralab.backbones.vocabulary import check_ids, check_types
from loralab.errors import UserError
from loralab.runs.build import text_objective
from loralab.runs.generation import EVALUATION_BATCH
from loralab.runs.load import TrainedRun
from loralab.runs.objective import LabelObjective, Predictor
from loralab.runs.plan import task_settings
from loralab.tasks.splits import Pairs, RawTask, Texts
from loralab.tasks.tokenise import encode_texts
from loralab.tasks.tokenise_pairs import encode_contexts
from loralab.training.batches import by_length
from loralab.training.distributed import ALONE
from loralab.training.threads import Workers

__all__ = ["TextPredictor", "probabilities", "workers"]

DIGITS = 6  # significant ones of a number, about those of fp32
_SPLIT = "predict"

Row = tuple[str, ...]
Columns = dict[str, list[Any]]


class TextPredictor:
    """`predictor(texts)`: columns of predictions, with an entry for each text.

    columns: {name: str or float}. `prediction` is a class's name, a number, or an answer; classes have `probability`,
    that of the prediction, and `p(NAME)` for each of them. texts: the names of the one or two columns of text in the
    run's own data. check: called between batches; it may raise.
    """

    def __init__(self, run: TrainedRun, check: Callable[[], Any] = lambda: None) -> None:
        self.run, self.check = run, check
        self.texts, _ = tasks.columns(task_settings(run.plan.config.task))
        self.columns: dict[str, type] = {"prediction": float if run.outputs.kind == "regression" else str}
        if run.outputs.labels is not None:
            self.columns |= dict.fromkeys(["probability", *(f"p({name})" for name in run.outputs.labels)], float)

    def __call__(self, texts: Sequence[str | Row | None]) -> Columns:
        """The columns of predictions; None where there is no text, or one without a token.

        texts: one text each, or a tuple of two for a run on pairs of texts.
        """
        rows = {i: (text,) if isinstance(text, str) else text for i, text in enumerate(texts) if text is not None}
        wanted = len(self.texts)
        if any(len(row) != wanted for row in rows.values()):
            raise UserError(f"texts: the run reads {wanted} a row ({', '.join(self.texts)}); give as many")
        predicted = self._answers if self.run.outputs.kind == "generation" else self._values
        out: Columns = {name: [None] * len(texts) for name in self.columns}
        places = list(rows)
        there, found = predicted([rows[i] for i in places]) if rows else ([], {})
        for name, values in found.items():
            for at, value in zip(there, values, strict=True):
                out[name][places[at]] = value
        return out

    def _values(self, rows: list[Row]) -> tuple[list[int], Columns]:
        """The places of the rows that have tokens, and their predictions."""
        plan, backbone, labels = self.run.plan, self.run.backbone, self.run.outputs.labels
        texts = Texts(rows, np.zeros(len(rows), dtype=np.int64), np.arange(len(rows), dtype=np.int64))

        def encoded(texts: Texts) -> tasks.Split:
            with encoding(plan.source):
                length = plan.config.train.max_length
                return encode_texts(texts, backbone.tokenizer, max_length=length, name="of these texts, number")

        split = encoded(texts)
        there = np.flatnonzero(split.lengths)
        if not len(there):
            return [], {}
        if len(there) < len(rows):
            texts = texts.take(there)
            split = encoded(texts)
        check_ids(backbone, [split.input_ids])
        check_types(backbone, [] if split.token_type_ids is None else [split.token_type_ids])
        pad_id = cast(int, cast(Any, backbone.model).config.pad_token_id)
        objective = LabelObjective(self._task(texts), {_SPLIT: split}, pad_id=pad_id, device=plan.device)
        with workers(self.run) as some:
            logits = objective.predict(_SPLIT, self._by(some))
        if labels is None:
            return there.tolist(), {"prediction": [_short(value) for value in logits[:, 0].tolist()]}
        p = probabilities(logits)
        best = p.argmax(axis=1)
        found: Columns = {"prediction": [labels[at] for at in best], "probability": [_short(x) for x in p.max(axis=1)]}
        return there.tolist(), found | {f"p({name})": [_short(x) for x in p[:, at]] for at, name in enumerate(labels)}

    def _answers(self, rows: list[Row]) -> tuple[list[int], Columns]:
        """The places of the contexts that have tokens, and their answers."""
        plan, backbone = self.run.plan, self.run.backbone
        config = plan.config

        def encoded(contexts: list[str]) -> tasks.PairSplit:
            with encoding(plan.source):
                return encode_contexts(
                    contexts, backbone.tokenizer, max_length=config.train.max_length, seq2seq=backbone.seq2seq,
                    separator=config.generate.separator, name="of these texts, number",
                )  # fmt: skip

        contexts = ["\n".join(text.strip() for text in row) for row in rows]
        split = encoded(contexts)
        there = np.flatnonzero(split.context_lengths)
        if not len(there):
            return [], {}
        if len(there) < len(rows):
            contexts = [contexts[at] for at in there]
            split = encoded(contexts)
        check_ids(backbone, [split.context_ids])
        pairs = Pairs(contexts, [("",)] * len(contexts), split.rows)
        objective = text_objective(plan, self._task(pairs), {_SPLIT: split}, backbone)
        order = by_length(split.context_lengths, batch_size=EVALUATION_BATCH)
        with workers(self.run) as some:
            return there.tolist(), {"prediction": objective.answers(_SPLIT, order, self._by(some))}

    def _task(self, texts: Any) -> RawTask[Any]:
        outputs, primary = self.run.outputs, self.run.record["metrics"]["primary"]
        return RawTask(self.run.plan.config.task.name, outputs.kind, outputs.labels, {_SPLIT: texts}, (primary,))

    def _by(self, some: Workers) -> Predictor:
        return Predictor(cast(Any, self.run.backbone.model), self.check, some, ALONE)


def workers(run: TrainedRun) -> Workers:
    """One for each of torch's threads on a CPU, one elsewhere."""
    return Workers(device.OWN_THREADS if run.plan.device.type == "cpu" else 1)


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """softmax of the logits (n, classes)."""
    from scipy.special import softmax

    p: NDArray[np.float64] = softmax(logits.astype(np.float64), axis=1)
    return p


def _short(value: float) -> float:
    """The number with DIGITS significant digits."""
    return float(f"{value:.{DIGITS}g}")
