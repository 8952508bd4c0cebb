"""Metrics of generated texts: predictions and their pairs -> one number per metric.

exact_match, number_match and execution_accuracy are shares (0 to 1) of correct rows, held_out_accuracy is that of the
rows of task=sql whose query has a word that no training table has; bleu, chrf and the rouge metrics range from 0 to
100, as in their papers. perplexity is the exp of the loss, and the only one that does not read the predictions.
sacrebleu and rouge-score (the extra `generation`) are imported only by the metrics that need them.
"""

import importlib
import importlib.util
import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from loralab.errors import UserError
from loralab.tasks.splits import Pairs
from loralab.tasks.sql_execution import same_results
from loralab.tasks.sql_words import HELD_OUT

__all__ = ["LOSS_METRICS", "TEXT_METRICS", "check_installed", "correct", "score_texts"]

_Right = npt.NDArray[np.bool_]

_ANSWER = "####"  # precedes the answer in GSM8K
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")


def score_texts(
    metrics: Sequence[str], predictions: Sequence[str], pairs: Pairs, *, loss: float = math.nan
) -> dict[str, float | None]:
    """Each metric, for one prediction per row; None where it is undefined.

    loss: the mean -log p of the references' tokens, in nats; NaN where it is unknown.
    """
    assert len(predictions) == len(pairs) > 0
    values = {
        name: LOSS_METRICS[name](loss) if name in LOSS_METRICS else TEXT_METRICS[name](predictions, pairs)
        for name in metrics
    }
    return {name: value if np.isfinite(value) else None for name, value in values.items()}


def correct(metric: str, predictions: Sequence[str], pairs: Pairs) -> _Right | None:
    """Whether each row is correct, (n,) bool; None for a metric that is not a share of correct rows."""
    return _RIGHT[metric](predictions, pairs) if metric in _RIGHT else None


def check_installed(metrics: Sequence[str]) -> None:
    """Raises UserError if one of the metrics needs a library that is not installed; imports none."""
    for name in metrics:
        if name in _LIBRARIES and importlib.util.find_spec(_LIBRARIES[name]) is None:
            raise UserError(
                f"task.metric: {name} needs {_LIBRARIES[name].replace('_', '-')}, which is not installed; "
                "run: pip install -e '.[generation]'"
            )


def _exact(predictions: Sequence[str], pairs: Pairs) -> _Right:
    """Whether a prediction equals one of its references, up to whitespace."""
    rows = zip(predictions, pairs.references, strict=True)
    return np.array([_spaced(text) in map(_spaced, references) for text, references in rows], dtype=np.bool_)


def _number(predictions: Sequence[str], pairs: Pairs) -> _Right:
    """Whether a prediction's number equals its first reference's: the number after ####, else the last one."""
    rows = zip(predictions, pairs.references, strict=True)
    return np.array([_final(text) == _final(own[0]) is not None for text, own in rows], dtype=np.bool_)


def _executed(predictions: Sequence[str], pairs: Pairs) -> _Right:
    """Whether a query returns the rows of the first reference on the row's database."""
    assert pairs.databases is not None
    return same_results(predictions, [own[0] for own in pairs.references], pairs.databases)


def _held_out(predictions: Sequence[str], pairs: Pairs) -> float:
    """The execution accuracy of the rows whose query has a held-out word of task=sql; NaN without such a row."""
    rows = [i for i, own in enumerate(pairs.references) if HELD_OUT & set(re.findall(r"\w+", own[0]))]
    if not rows:
        return math.nan
    return float(_executed([predictions[i] for i in rows], pairs.take(np.array(rows, dtype=np.int64))).mean())


def _perplexity(loss: float) -> float:
    """exp of the loss; NaN beyond the largest float."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.nan


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _final(text: str) -> Decimal | None:
    _, marked, answer = text.rpartition(_ANSWER)
    numbers = (_NUMBER.findall(answer)[:1] if marked else []) or _NUMBER.findall(text)
    return Decimal(numbers[-1].replace(",", "")) if numbers else None


def _bleu(predictions: Sequence[str], pairs: Pairs) -> float:
    """sacrebleu's corpus BLEU (13a tokens), against all references of a row."""
    from sacrebleu import corpus_bleu

    return float(corpus_bleu(list(predictions), _streams(pairs)).score)


def _chrf(predictions: Sequence[str], pairs: Pairs) -> float:
    """sacrebleu's corpus chrF2, against all references of a row."""
    from sacrebleu import corpus_chrf

    return float(corpus_chrf(list(predictions), _streams(pairs)).score)


def _streams(pairs: Pairs) -> list[list[str | None]]:
    """References in sacrebleu's layout: list k has the k-th reference of every row, None if a row has fewer."""
    most = max(map(len, pairs.references))
    return [[own[k] if k < len(own) else None for own in pairs.references] for k in range(most)]


def _rouge(kind: str) -> Callable[[Sequence[str], Pairs], float]:
    def mean(predictions: Sequence[str], pairs: Pairs) -> float:
        """Mean over rows of rouge-score's F1, with stemming, against a row's best reference."""
        from rouge_score.rouge_scorer import RougeScorer

        scorer = RougeScorer([kind], use_stemmer=True)
        rows = zip(predictions, pairs.references, strict=True)
        return 100 * float(np.mean([scorer.score_multi(own, text)[kind].fmeasure for text, own in rows]))

    return mean


def _share(right: Callable[[Sequence[str], Pairs], _Right]) -> Callable[[Sequence[str], Pairs], float]:
    return lambda predictions, pairs: float(right(predictions, pairs).mean())


_RIGHT: dict[str, Callable[[Sequence[str], Pairs], _Right]] = {
    "exact_match": _exact, "number_match": _number, "execution_accuracy": _executed,
}  # fmt: skip

_ROUGE = ("rouge1", "rouge2", "rougeL")
_LIBRARIES = {"bleu": "sacrebleu", "chrf": "sacrebleu", **dict.fromkeys(_ROUGE, "rouge_score")}

TEXT_METRICS: dict[str, Callable[[Sequence[str], Pairs], float]] = {
    **{name: _share(right) for name, right in _RIGHT.items()},
    "held_out_accuracy": _held_out,
    "bleu": _bleu,
    "chrf": _chrf,
    **{kind: _rouge(kind) for kind in _ROUGE},
}

LOSS_METRICS: dict[str, Callable[[float], float]] = {"perplexity": _perplexity}
