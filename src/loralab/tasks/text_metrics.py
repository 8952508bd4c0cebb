"""Metrics of generated texts: predictions and their pairs -> one number per metric.

exact_match, number_match and execution_accuracy are shares (0 to 1) of correct rows; bleu, chrf and the rouge metrics
range from 0 to 100, as in their papers. sacrebleu and rouge-score (the extra `generation`) are imported only by the
metrics that need them.
"""

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from loralab.errors import UserError
from loralab.tasks.splits import Pairs
from loralab.tasks.sql_execution import same_results

__all__ = ["TEXT_METRICS", "correct", "score_texts"]

_Right = npt.NDArray[np.bool_]

_ANSWER = "####"  # precedes the answer in GSM8K
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")


def score_texts(metrics: Sequence[str], predictions: Sequence[str], pairs: Pairs) -> dict[str, float | None]:
    """Each metric, for one prediction per row; None where it is undefined."""
    assert len(predictions) == len(pairs) > 0
    values = {name: TEXT_METRICS[name](predictions, pairs) for name in metrics}
    return {name: value if np.isfinite(value) else None for name, value in values.items()}


def correct(metric: str, predictions: Sequence[str], pairs: Pairs) -> _Right | None:
    """Whether each row is correct, (n,) bool; None for a metric that is not a share of correct rows."""
    return _RIGHT[metric](predictions, pairs) if metric in _RIGHT else None


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


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _final(text: str) -> Decimal | None:
    _, marked, answer = text.rpartition(_ANSWER)
    numbers = (_NUMBER.findall(answer)[:1] if marked else []) or _NUMBER.findall(text)
    return Decimal(numbers[-1].replace(",", "")) if numbers else None


def _bleu(predictions: Sequence[str], pairs: Pairs) -> float:
    """sacrebleu's corpus BLEU (13a tokens), against all references of a row."""
    return float(_extra("sacrebleu").corpus_bleu(list(predictions), _streams(pairs)).score)


def _chrf(predictions: Sequence[str], pairs: Pairs) -> float:
    """sacrebleu's corpus chrF2, against all references of a row."""
    return float(_extra("sacrebleu").corpus_chrf(list(predictions), _streams(pairs)).score)


def _streams(pairs: Pairs) -> list[list[str | None]]:
    """References in sacrebleu's layout: list k has the k-th reference of every row, None if a row has fewer."""
    most = max(map(len, pairs.references))
    return [[own[k] if k < len(own) else None for own in pairs.references] for k in range(most)]


def _rouge(kind: str) -> Callable[[Sequence[str], Pairs], float]:
    def mean(predictions: Sequence[str], pairs: Pairs) -> float:
        """Mean over rows of rouge-score's F1, with stemming, against a row's best reference."""
        scorer = _extra("rouge_score.rouge_scorer").RougeScorer([kind], use_stemmer=True)
        rows = zip(predictions, pairs.references, strict=True)
        return 100 * float(np.mean([scorer.score_multi(own, text)[kind].fmeasure for text, own in rows]))

    return mean


def _share(right: Callable[[Sequence[str], Pairs], _Right]) -> Callable[[Sequence[str], Pairs], float]:
    return lambda predictions, pairs: float(right(predictions, pairs).mean())


def _extra(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = "rouge-score" if module.startswith("rouge") else module
        raise UserError(
            f"task.metric: {package} is not installed ({error}); run: pip install -e '.[generation]'"
        ) from None


_RIGHT: dict[str, Callable[[Sequence[str], Pairs], _Right]] = {
    "exact_match": _exact, "number_match": _number, "execution_accuracy": _executed,
}  # fmt: skip

TEXT_METRICS: dict[str, Callable[[Sequence[str], Pairs], float]] = {
    **{name: _share(right) for name, right in _RIGHT.items()},
    "bleu": _bleu,
    "chrf": _chrf,
    **{kind: _rouge(kind) for kind in ("rouge1", "rouge2", "rougeL")},
}
