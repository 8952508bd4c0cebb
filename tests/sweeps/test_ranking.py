"""The configurations of a sweep are ranked by their mean over the seeds, for each task by itself."""

import math
from dataclasses import replace
from typing import Any

import pytest

from loralab.errors import UserError
from loralab.runs.rows import Row
from loralab.sweeps.ranking import Ranking, rankings
from tests.sweeps.made_rows import grid, row

RATES = (1e-3, 2e-3, 4e-3)


def ranked(rows: list[Row], **more: Any) -> Ranking:
    (found,) = rankings(rows, **{"metric": None, **more})
    return found


def test_the_best_mean_over_the_seeds_is_the_first() -> None:
    found = ranked(grid(lambda optim__lr: optim__lr, seeds=3, optim__lr=RATES))
    assert [each.settings["optim.lr"] for each in found.configurations] == [4e-3, 2e-3, 1e-3]
    assert found.configurations[0].mean == pytest.approx(4e-3 + 0.01)
    assert found.configurations[0].deviation == pytest.approx(0.01)
    assert found.columns == found.axes == ["optim.lr"] and found.metric == "validation/accuracy"


def test_of_equal_scores_the_lower_loss_is_the_first() -> None:
    rows = [
        replace(row(0.5, optim__lr=rate), scores={"validation/accuracy": 0.5, "validation/loss": loss})
        for rate, loss in zip(RATES, (1.2, 0.9, 1.1), strict=True)
    ]
    assert [each.settings["optim.lr"] for each in ranked(rows).configurations] == [2e-3, 4e-3, 1e-3]


@pytest.mark.parametrize("metric", ["loss", "perplexity", "mse"])
def test_the_lowest_is_the_best_of_a_loss(metric: str) -> None:
    rows = [row(rate, metric=metric, optim__lr=rate) for rate in RATES]
    assert [each.settings["optim.lr"] for each in ranked(rows).configurations] == [*RATES]


def test_a_configuration_with_a_diverged_seed_is_never_the_best() -> None:
    rows = [*grid(lambda optim__lr: 0.5, seeds=2, optim__lr=RATES[:2]), row(0.9, optim__lr=4e-3, seed=0)]
    rows.append(row(None, status="diverged", optim__lr=4e-3, seed=1))
    found = ranked(rows)
    assert math.isnan(found.configurations[-1].mean) and found.configurations[-1].settings["optim.lr"] == 4e-3
    assert found.best is found.configurations[0]


def test_runs_that_are_not_done_are_left_out_of_the_mean() -> None:
    rows = [
        row(0.5, seed=0, optim__lr=1e-3),
        row(0.9, status="paused", seed=1, optim__lr=1e-3),
        row(0.4, optim__lr=2e-3),
    ]
    first = ranked(rows).configurations[0]
    assert (first.mean, len(first.done), len(first.rows)) == (0.5, 1, 2)
    assert ranked([row(None, status="missing", optim__lr=rate) for rate in RATES]).best is None


def test_of_values_that_were_drawn_none_follows_from_another() -> None:
    rows = [row(0.5, lora__dropout=rate, optim__lr=rate / 100) for rate in (0.1, 0.3, 0.2)]
    drawn = ["optim.lr", "lora.dropout"]
    assert ranked(rows, varied=drawn).axes == ["optim.lr"]
    assert ranked(rows, varied=drawn, free=True).axes == drawn


def test_scores_of_two_tasks_are_not_compared() -> None:
    rows = grid(lambda task, optim__lr: optim__lr, task=["trec", "imdb"], optim__lr=RATES)
    found = rankings(rows, metric=None)
    assert [(each.task, len(each.configurations), list(each.columns)) for each in found] == [
        ("trec", 3, ["optim.lr"]),
        ("imdb", 3, ["optim.lr"]),
    ]


def test_each_task_has_its_own_metric() -> None:
    rows = [row(0.5, task="stsb", metric="pearson", optim__lr=r) for r in RATES]
    rows += [row(0.5, optim__lr=r) for r in RATES]
    assert [each.metric for each in rankings(rows, metric=None)] == ["validation/pearson", "validation/accuracy"]


def test_a_rate_that_follows_from_the_ratio_is_a_column_and_no_axis() -> None:
    rows = [row(0.5, lora__ratio=r, optim__lr=0.01 / r) for r in (1, 4, 16)]
    found = ranked(rows, varied=("lora.ratio", "seed"))
    assert found.columns == ["lora.ratio", "optim.lr"] and found.axes == ["lora.ratio"]
    steps = [row(0.5, train__steps=n, optim__lr=1 / n) for n in (100, 200)]
    assert ranked(steps, varied=("train.steps",)).axes == ["train.steps"], "what the sweep sets is the axis"
    assert [each.axis for each in ranked(steps, varied=("train.steps",)).edges()] == ["train.steps"]


def test_seeds_alone_are_one_configuration() -> None:
    found = ranked(grid(lambda: 0.5, seeds=4))
    assert len(found.configurations) == 1 and len(found.configurations[0].values) == 4
    assert found.axes == [] and found.edges() == [] and found.undecided() == 0


def test_the_scores_are_those_of_the_weights_that_are_saved() -> None:
    def one(keep: str) -> str:
        return ranked([row(0.5, optim__lr=rate, train__keep=keep) for rate in RATES]).metric

    assert one("last") == "validation/accuracy"
    with pytest.raises(
        UserError, match=r"^--metric: got 'best/validation/accuracy'; the runs have validation/accuracy$"
    ):
        one("best")  # these rows lack it


def test_what_the_seeds_cannot_tell_apart_is_counted() -> None:
    rows = grid(lambda optim__lr: {1e-3: 0.5, 2e-3: 0.505, 4e-3: 0.9}[optim__lr], seeds=3, optim__lr=RATES)
    assert ranked(rows).undecided() == 0, "0.9 is far from both"
    assert ranked([each for each in rows if each.settings["optim.lr"] < 4e-3]).undecided() == 1
    assert ranked(grid(lambda optim__lr: 0.5, optim__lr=RATES)).undecided() == 0, "one seed says nothing"
