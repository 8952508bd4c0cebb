"""Whether the best lies at an end of an axis."""

import math
from collections.abc import Mapping

import pytest

from loralab.sweeps.edge import Edge, Score, edge


def found(losses: Mapping[float, tuple[float, ...]], *, least: int = 2) -> Edge | None:
    scores = [Score.of({"optim.lr": rate}, values) for rate, values in losses.items()]
    best = min(scores, key=lambda score: score.mean if math.isfinite(score.mean) else math.inf)
    return edge("optim.lr", best, scores, least=least)


def test_the_best_at_an_end_is_an_edge_and_inside_is_none() -> None:
    at_the_top = found({1e-3: (0.5,), 2e-3: (0.4,), 4e-3: (0.3,)})
    assert at_the_top is not None
    assert at_the_top.advice == (
        "the best lies at the edge of optim.lr: 0.004 is the largest of 3 tried; try larger ones"
    )
    at_the_bottom = found({1e-3: (0.3,), 2e-3: (0.4,), 4e-3: (0.5,)})
    assert at_the_bottom is not None and at_the_bottom.advice.endswith(
        "0.001 is the smallest of 3 tried; try smaller ones"
    )
    assert found({1e-3: (0.5,), 2e-3: (0.3,), 4e-3: (0.4,)}) is None


def test_two_values_have_two_ends_where_two_are_enough() -> None:
    assert found({1e-3: (0.5,), 2e-3: (0.3,)}) is not None
    assert found({1e-3: (0.5,), 2e-3: (0.3,)}, least=3) is None
    assert found({1e-3: (0.5,)}) is None


def test_a_tie_inside_is_named() -> None:
    tied = found({1e-3: (0.5, 0.5), 2e-3: (0.31, 0.35), 4e-3: (0.3, 0.34)})
    assert tied is not None and tied.advice.endswith(
        "0.004 is the largest of 3 tried (0.002 is within one standard error)"
    )


def test_words_have_no_ends() -> None:
    scores = [Score.of({"method": name}, (loss,)) for name, loss in (("lora", 0.5), ("full", 0.4))]
    assert edge("method", scores[1], scores, least=2) is None


def test_the_axis_is_the_window_of_the_best_where_it_has_one() -> None:
    """Each ratio has its own rates; the best rate is the largest of its ratio, and not of all."""
    windows = {1: (4e-3, 8e-3), 16: (1e-3, 2e-3)}
    scores = [Score.of({"lora.ratio": r, "optim.lr": lr}, (lr * r,)) for r, rates in windows.items() for lr in rates]
    best = scores[1]
    at_end = edge("optim.lr", best, scores, least=2)
    assert at_end is not None and (at_end.value, at_end.largest, at_end.tried) == (8e-3, True, 2)
    wider = edge("optim.lr", best, scores, least=3)
    assert wider is not None and wider.tried == 4


def test_a_diverged_seed_has_no_mean() -> None:
    assert math.isnan(Score.of({}, (0.5, math.nan)).mean)
    assert math.isnan(Score.of({}, ()).mean)
    assert Score.of({}, (0.4, 0.6)).error == pytest.approx(0.1)
