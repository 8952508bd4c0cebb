"""Selection: the best mean over the seeds for each arm; nothing before the grid is finished; edges are reported."""

import math
import subprocess
import sys
from itertools import product
from typing import Any

import pandas as pd
import pytest

from loralab.errors import UserError
from loralab.sweeps.selection import edges, selected

RATES = (0.001, 0.002, 0.004, 0.008)


def row(status: str = "success", stage: str = "grid", loss: float = 1.0, **axes: Any) -> dict[str, Any]:
    """A row as in loralab.sweeps.collect: the axes between stage and status."""
    named = {key.replace("__", "."): value for key, value in axes.items()}
    scores = {"validation/loss": loss, "validation/accuracy": 1 - loss / 10}
    return {"run": "x-0123456789", "hash": "0123456789", "stage": stage, **named, "status": status, **scores}


def grid(losses: dict[float, tuple[float, ...]], **axes: Any) -> list[dict[str, Any]]:
    """One arm: each learning rate's losses, by seed."""
    return [row(**axes, optim__lr=lr, seed=s, loss=x) for lr, many in losses.items() for s, x in enumerate(many)]


def chosen(rows: list[dict[str, Any]], metric: str = "validation/loss", by: tuple[str, ...] = ("task",)) -> Any:
    return selected(pd.DataFrame(rows), by=by, metric=metric, over=["seed"])


def warnings(rows: list[dict[str, Any]], by: tuple[str, ...] = ("task",)) -> list[str]:
    found = edges(pd.DataFrame(rows), by=by, metric="validation/loss", over=["seed"])
    return [edge.line for edge in found]


def test_the_best_mean_over_the_seeds_wins_not_the_best_run() -> None:
    rows = grid({0.001: (0.1, 0.9), 0.002: (0.4, 0.4), 0.004: (0.3, 0.6)}, task="trec")
    (best,) = chosen(rows)
    assert best == {"task": "trec", "optim.lr": 0.002, "mean": 0.4}


def test_each_combination_has_its_own() -> None:
    rows = [
        *grid({0.001: (0.5,), 0.002: (0.4,)}, task="trec", lora__ratio=1),
        *grid({0.001: (0.3,), 0.002: (0.6,)}, task="trec", lora__ratio=16),
        *grid({0.001: (0.9,), 0.002: (0.8,)}, task="imdb", lora__ratio=1),
    ]
    found = chosen(rows, by=("task", "lora.ratio"))
    assert [(best["task"], best["lora.ratio"], best["optim.lr"]) for best in found] == [
        ("trec", 1, 0.002),
        ("trec", 16, 0.001),
        ("imdb", 1, 0.002),
    ]
    assert [best["optim.lr"] for best in chosen(rows)] == [0.001, 0.002]
    assert [best["mean"] for best in chosen(rows, by=())] == [0.3]


@pytest.mark.parametrize("name", ["loss", "mse", "perplexity"])
def test_lower_is_better_for_losses_and_higher_for_scores(name: str) -> None:
    rows = grid({0.001: (0.5,), 0.002: (0.4,), 0.004: (0.6,)}, task="trec")
    frame = pd.DataFrame(rows).rename(columns={"validation/loss": f"test/{name}"})
    (best,) = selected(frame, by=["task"], metric=f"test/{name}", over=["seed"])
    assert best["optim.lr"] == 0.002
    frame = pd.DataFrame(rows).rename(columns={"validation/loss": "test/pearson"})
    (best,) = selected(frame, by=["task"], metric="test/pearson", over=["seed"])
    assert best["optim.lr"] == 0.004


def test_of_equal_means_the_first_is_selected() -> None:
    assert chosen(grid({0.004: (0.4,), 0.001: (0.4,)}, task="trec"))[0]["optim.lr"] == 0.004


@pytest.mark.parametrize("spoilt", [{"status": "diverged"}, {"validation/loss": math.nan}])
def test_one_diverged_seed_makes_its_configuration_the_worst(spoilt: dict[str, Any]) -> None:
    rows = grid({0.001: (0.5, 0.5), 0.002: (0.1, 0.1)}, task="trec")
    rows[3] |= spoilt  # a diverged run may have a score
    assert chosen(rows)[0]["optim.lr"] == 0.001
    rows[0] |= spoilt
    with pytest.raises(UserError, match=r"^task=trec: none of its 2 configurations can be selected by validation/loss"):
        chosen(rows)


def test_nothing_is_selected_before_the_grid_is_done() -> None:
    rows = grid(dict.fromkeys(RATES, (0.5, 0.4)), task="trec")
    for at, state in enumerate(("missing", "failed", "running", "failed")):
        rows[at]["status"] = state
    with pytest.raises(UserError, match=r"^4 of 8 runs are not done \(1 missing, 2 failed, 1 running\)"):
        chosen(rows)
    bare = pd.DataFrame([{"stage": "grid", "task": "trec", "status": "missing"}])  # no run: no column of scores
    with pytest.raises(UserError, match=r"^1 of 1 runs are not done \(1 missing\)"):
        selected(bare, by=["task"], metric="validation/loss", over=["seed"])


def test_runs_of_the_second_stage_have_no_say() -> None:
    rows = grid({0.001: (0.5,), 0.002: (0.4,)}, task="trec")
    rows += [row(stage="confirm", status="missing", task="trec", optim__lr=0.001, seed=100, loss=0.0)]
    assert chosen(rows)[0]["optim.lr"] == 0.002
    assert chosen(rows[2:]) == []


def test_an_unknown_metric_is_one_line_with_the_nearest() -> None:
    with pytest.raises(
        UserError, match=r"^hydra\.sweeper\.confirm\.select: got 'validation/los'; .* validation/loss\?$"
    ):
        chosen(grid({0.001: (0.5,)}, task="trec"), metric="validation/los")


def test_a_key_that_does_not_vary_is_no_axis() -> None:
    assert chosen(grid({0.001: (0.5,), 0.002: (0.4,)}))[0]["optim.lr"] == 0.002  # task was pinned


def test_null_is_a_value_and_an_axis_that_is_not_there_is_nan() -> None:
    rows = [
        row(lora__ratio=1, optim__clip=None, loss=0.3),
        row(lora__ratio=1, optim__clip=1.0, loss=0.4),
        row(lora__ratio=16, optim__clip=math.nan, loss=0.5),
    ]
    frame = pd.DataFrame(rows).astype({"optim.clip": object})
    frame["optim.clip"] = pd.Series([None, 1.0, math.nan], dtype=object)
    one, other = selected(frame, by=["lora.ratio"], metric="validation/loss", over=["seed"])
    assert one["optim.clip"] is None
    assert math.isnan(other["optim.clip"])


def test_lists_and_axes_that_vary_together_are_values_like_others() -> None:
    values = [(("q",), 1, 0.5), (("q", "v"), 8, 0.4), (("q",), 8, 0.6)]
    rows = [row(lora__targets=t, lora__rank=r, lora__alpha=r, seed=s, loss=x) for t, r, x in values for s in (0, 1)]
    assert chosen(rows) == [{"lora.targets": ("q", "v"), "lora.rank": 8, "lora.alpha": 8, "mean": 0.4}]


def test_an_edge_of_the_arms_own_window_is_told() -> None:
    rows = [
        *grid(dict(zip(RATES, [(0.5,), (0.4,), (0.3,), (0.2,)], strict=True)), lora__ratio=16, task="trec"),
        *grid({0.004: (0.2,), 0.008: (0.3,), 0.016: (0.4,)}, lora__ratio=4, task="trec"),
        *grid({0.008: (0.5,), 0.016: (0.4,), 0.032: (0.6,)}, lora__ratio=1, task="trec"),
    ]
    assert warnings(rows, by=("lora.ratio", "task")) == [
        "lora.ratio=16 task=trec: optim.lr 0.008 is the largest tried; extend the axis before publishing",
        "lora.ratio=4 task=trec: optim.lr 0.004 is the smallest tried; extend the axis before publishing",
    ]


def test_an_arms_window_is_its_own_even_within_one_combination() -> None:
    """If two ratios are candidates, the window of the better one counts, not the union of both."""
    rows = [
        *grid({0.001: (0.5,), 0.002: (0.4,), 0.004: (0.2,)}, lora__ratio=16, task="trec"),
        *grid({0.004: (0.5,), 0.008: (0.4,), 0.016: (0.6,)}, lora__ratio=1, task="trec"),
    ]
    assert warnings(rows)[0].startswith("task=trec: optim.lr 0.004 is the largest tried")


def test_two_values_words_and_an_arm_without_the_axis_have_no_edge() -> None:
    assert warnings(grid({0.001: (0.5,), 0.002: (0.4,)}, task="trec")) == []
    words = [row(task="trec", lora__init=x, optim__clip=None, loss=i) for i, x in enumerate("ABC")]
    assert warnings(words) == []


def test_a_diverged_rate_was_tried() -> None:
    rows = grid({0.001: (0.5,), 0.002: (0.4,), 0.004: (0.3,)}, task="trec")
    rows.append(row("diverged", task="trec", optim__lr=0.008, seed=0))
    assert warnings(rows) == []


def test_axes_that_vary_together_have_edges() -> None:
    rows = [row(task="trec", lora__rank=r, lora__alpha=r, seed=0, loss=1 / r) for r in (1, 8, 64)]
    assert [line.split(" is ")[0] for line in warnings(rows)] == ["task=trec: lora.rank 64", "task=trec: lora.alpha 64"]


def test_a_tie_within_one_standard_error_is_told() -> None:
    """The mean at the edge is .30 with standard error .05; .34 inside the axis ties with it, .36 does not."""
    tied = grid({0.001: (0.5, 0.5), 0.002: (0.34, 0.34), 0.004: (0.25, 0.35)}, task="trec")
    assert warnings(tied) == [
        "task=trec: optim.lr 0.004 is the largest tried, and 0.002, inside the axis, is within one standard error of it"
    ]
    apart = grid({0.001: (0.3, 0.32), 0.002: (0.36, 0.36), 0.004: (0.25, 0.35)}, task="trec")
    assert warnings(apart) == ["task=trec: optim.lr 0.004 is the largest tried; extend the axis before publishing"]


def test_with_one_seed_nothing_ties() -> None:
    rows = grid({0.001: (0.5,), 0.002: (0.3,), 0.004: (0.3,)}, task="trec")
    assert warnings(rows) == []  # of equal rates the first is selected, and it is inside
    assert "extend the axis" in warnings(rows[::-1])[0]


@pytest.mark.parametrize("seed", range(3))
def test_random_grids_agree_with_pandas(seed: int) -> None:
    state = pd.Series(range(96)).sample(frac=1, random_state=seed).tolist()
    keys = list(product(("a", "b"), (1, 4, 16), RATES, range(4)))
    rows = [row(task=t, lora__ratio=r, optim__lr=lr, seed=s, loss=state[i]) for i, (t, r, lr, s) in enumerate(keys)]
    frame = pd.DataFrame(rows)
    means = frame.groupby(["task", "lora.ratio", "optim.lr"])["validation/loss"].mean()
    expected = {(t, r): means[t, r].min() for t in ("a", "b") for r in (1, 4, 16)}
    found = chosen(rows, by=("task", "lora.ratio"))
    assert {(best["task"], best["lora.ratio"]): best["mean"] for best in found} == expected
    for best in found:
        assert means[best["task"], best["lora.ratio"], best["optim.lr"]] == best["mean"]


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, loralab.sweeps.selection; assert not {'torch', 'pandas', 'hydra'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
