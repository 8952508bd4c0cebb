"""intruders: a direction that W lacks is counted, delta W is the trained update, and arms are distinguished."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from loralab.inspect import spectra
from loralab.inspect.updates import read_updates
from loralab.runs.plan import plan
from loralab.runs.run import run
from loralab.store.run_directory import RunDirectory
from loralab.studies import subspaces
from loralab.studies.stats import mean_interval
from tests.analysis.frames import claims, drawn, made, module, verdicts
from tests.analysis.overlaps import scores
from tests.small_runs import config

STUDY = module("intruders")
ARMS = {"r = 1": 6, "r = 8": 4, "r = 64": 1, "r = 8, λ = 16": 5, "full": 0}  # number of intruders at the largest eps
SEEDS = range(300, 306)


def arm(run: dict[str, Any]) -> str:
    if run["method"] == "full":
        return "full"
    return f"r = {run['lora.rank']:g}" + (", λ = 16" if run["lora.ratio"] == 16 else "")


def count(name: str, eps: float, seed: int) -> int:
    return max(0, ARMS[name] + seed % 2 - round(10 * (0.7 - eps)))


def rows(run: dict[str, Any]) -> list[dict[str, Any]]:
    """Two layers of each map: one has the arm's number of intruders, and the other has two more."""
    found = [scores(run)]
    for which in ("q", "v"):
        for layer in (0, 1):
            counts = {f"below {eps:g}": count(arm(run), eps, run["seed"]) + 2 * layer for eps in STUDY.EPS}
            sizes = {"stable rank": 2.0, "effective rank": 3.0 + layer, "norm": 0.1 + ARMS[arm(run)]}
            found.append({"kind": "layer", "map": which, "layer": str(layer)} | counts | sizes)
    return found


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return made("intruders", rows).sample(frac=1, random_state=0)


def test_the_arms_are_the_ranks_the_other_lambda_and_full_fine_tuning(frame: pd.DataFrame) -> None:
    arms = STUDY.arms(frame)
    assert list(arms) == list(ARMS)
    for name, of in arms.items():
        assert of["seed"].nunique() == len(of[of["kind"] == "run"]) == 6
        assert STUDY.by_seed(of, "below 0.7").tolist() == [count(name, 0.7, seed) + 1 for seed in SEEDS]


def test_more_intruders_than_full_fine_tuning_hold_and_fewer_do_not(frame: pd.DataFrame) -> None:
    seeds = 0.01 * (frame["seed"] % 3)
    rank = frame["lora.rank"].map({1: 3.0, 8: 2.0, 64: 1.0}).fillna(0)  # 0: full
    for sign, verdict in ((1, "held"), (-1, "contradicted in size")):
        turned = frame.assign(**{"below 0.5": sign * (rank + rank * seeds) + 9})
        found = [claim.found for claim in claims("intruders", turned)]
        assert [each.estimate for each in found] == pytest.approx([sign * 2.02] * 2)
        assert [each.n for each in found] == [6, 6] and verdicts("intruders", turned) == [verdict] * 2


def test_the_lines_are_the_arms_means_over_layers(frame: pd.DataFrame) -> None:
    with drawn("intruders", frame) as figure:
        ax: Any = figure.axes[0]
        for (name, _), (point, _, (segments,)) in zip(ARMS.items(), ax.containers, strict=True):
            for at, eps in enumerate(STUDY.EPS):
                expected = mean_interval([count(name, eps, seed) + 1 for seed in SEEDS])
                assert point.get_ydata()[at] == pytest.approx(expected.estimate)
                assert segments.get_segments()[at][:, 1].tolist() == pytest.approx([expected.low, expected.high])
        (table,) = figure.axes[1].tables
        assert [table[at + 1, -1].get_text().get_text() for at in range(len(ARMS))] == list(ARMS)
        assert {table[at + 1, 1].get_text().get_text() for at in range(len(ARMS))} == {"3.5"}
    summary = STUDY.summary(frame).set_index("arm")
    assert list(summary.index) == list(ARMS) and summary["test accuracy"].eq(0.9).all()


def test_a_direction_that_w_lacks_is_an_intruder_and_one_of_its_own_is_not() -> None:
    """W's singular vectors are the axes; the diagonal of the space has cosine 1/4 with each of the 16."""
    W = np.diag(np.arange(16, 0, -1.0))
    diagonal, axis = np.ones((16, 1)) / 4, np.eye(16)[:, 5:6]
    for direction, found in ((diagonal, 1), (axis, 0)):
        row = STUDY.measured(W, spectra.left_basis(W), 1e4 * direction @ direction.T)
        assert [row[f"below {eps:g}"] for eps in (0.3, 0.5)] == [found, found]
        assert row["stable rank"] == pytest.approx(1) and row["norm"] == pytest.approx(1e4 / np.linalg.norm(W))
    assert STUDY.measured(W, spectra.left_basis(W), 1e-3 * diagonal @ diagonal.T)["below 0.7"] == 0


@pytest.mark.parametrize("method", ["lora", "full"])
def test_delta_w_is_what_was_trained_less_what_there_was(method: str, tmp_path: Path) -> None:
    settings = config(tmp_path, f"method={method}", "optim.lr=0.01", "train.steps=2", "train.eval_every=2")
    lora = config(tmp_path, "method=lora", "optim.lr=0.01", "train.steps=2", "train.eval_every=2")
    done = []
    for each in (lora, settings):
        run(each)
        done.append(RunDirectory(plan(each).directory.path))
    weights = subspaces.frozen(reversed(done))  # of the run that has an adapter
    found = STUDY.deltas(done[1], weights)
    assert found.keys() == weights.keys() and len(found) == 4
    if method == "lora":
        for name, update in read_updates(done[1].adapter).items():
            np.testing.assert_allclose(found[name], update.scaling * update.B @ update.A, atol=1e-6)
    else:
        tuned = load_file(done[1].model / "model.safetensors")
        for name, delta in found.items():
            np.testing.assert_allclose(delta, tuned[f"{name}.weight"] - weights[name], atol=1e-6)
            assert 1e-4 < np.abs(delta).max() < 0.1  # two steps of Adam at 0.01
