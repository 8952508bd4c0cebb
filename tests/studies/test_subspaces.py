"""Subspace similarity: phi of real runs has its known values, and the figure shows them."""

import subprocess
import sys
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from loralab import plotting
from loralab.inspect import spectra
from loralab.inspect.updates import initial_updates, read_updates
from loralab.runs.plan import plan
from loralab.runs.run import run
from loralab.studies import subspaces
from loralab.studies.stats import mean_interval
from loralab.studies.subspaces import SIDES, Bases, Line, Pair
from loralab.studies.tables import Tables
from tests.small_runs import config

D, R = 64, 4  # width of the tiny backbone; rank of the runs
POWERS = [1, 2, 4]
SETTINGS = ("method=lora", f"lora.rank={R}", f"lora.alpha={R}", "optim.lr=0.02", "train.eval_every=3")
RUNS = {"one": ("seed=0", "train.steps=3"), "two": ("seed=1", "train.steps=3"), "later": ("seed=0", "train.steps=6")}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Three runs, two of them with the same seed, as in a study's table, and one that diverged."""
    store, rows = tmp_path_factory.mktemp("store"), []
    for name, overrides in RUNS.items():
        settings = config(store, *SETTINGS, *overrides)
        record = run(settings)
        rows.append({"hash": name, "run": plan(settings).directory.path.name, "status": record["status"]})
    frame = pd.DataFrame(rows).assign(stage="grid", seed=[0, 1, 0], seconds=1.0, commit="c", diff=None)
    frame = frame.assign(**{"test/accuracy": 0.5, "test/loss": 1.0})
    gone = frame.iloc[:1].assign(hash="gone", status="diverged")
    return Tables(pd.concat([frame, gone], ignore_index=True), pd.DataFrame(), store)


@pytest.fixture(scope="module")
def one(trained: Tables) -> Bases:
    return subspaces.bases(subspaces.finished(trained)["one"])


def diagonal(found: pd.DataFrame, kind: str, **of: Any) -> "pd.Series[float]":
    """phi(i, i), the mean over the layers."""
    rows = found[(found["kind"] == kind) & (found["layer"] == "all") & (found["i"] == found["j"])]
    for column, value in of.items():
        rows = rows[rows[column] == value]
    assert len(rows)
    return rows["phi"]


def test_a_run_shares_all_with_itself_and_its_start_all_with_that_of_its_seed(trained: Tables) -> None:
    pairs = [Pair("self", "one", "one"), Pair("untrained", "one", "later"), Pair("same", "one", "later")]
    found = subspaces.compare_pairs(trained, pairs)
    np.testing.assert_allclose(diagonal(found, "self"), 1)
    np.testing.assert_allclose(diagonal(found, "untrained"), 1)
    assert diagonal(found, "same").max() < 1


def test_the_starts_of_two_seeds_share_what_chance_has_them_share(trained: Tables) -> None:
    """Four layers, i = j = 4: each phi is a mean of 16 squared cosines with standard deviation 1/D * sqrt 2."""
    found = subspaces.compare_pairs(trained, [Pair("untrained", "one", "two")], random=True)
    phi = diagonal(found, "untrained", i=R)
    assert len(phi) == 2 and set(found["side"].dropna()) == {"A"} and "random" not in set(found["kind"])
    assert abs(phi.mean() - R / D) < 4 * np.sqrt(2) / D / np.sqrt(16 * 4 / R)


def test_random_subspaces_stand_beside_trained_pairs_alone(trained: Tables) -> None:
    found = subspaces.compare_pairs(trained, [Pair("other", "one", "two")], random=True)
    drawn = found[found["kind"] == "random"]
    assert set(drawn["side"]) == {"A"} and set(drawn["hash"]) == {"one"} and len(drawn) == 2 * len(POWERS) ** 2
    assert abs(diagonal(found, "random", i=R).mean() - R / D) < 4 * np.sqrt(2) / D / np.sqrt(16 * 4 / R)


def test_the_sides_are_those_of_the_factors_and_of_the_dense_update(trained: Tables, one: Bases) -> None:
    directory = subspaces.finished(trained)["one"]
    start, updates = initial_updates(directory), read_updates(directory.adapter)
    assert one.keys() == updates.keys() and len(one) == 4
    for name, update in updates.items():
        left, _, right = np.linalg.svd(update.scaling * update.B.astype(float) @ update.A, full_matrices=False)
        dense = {"left": left[:, :R], "right": right[:R].T}
        for side, factor in (("A", update.A), ("A_0", start[name].A), ("A - A_0", update.A - start[name].A)):
            dense[side] = np.linalg.svd(factor.astype(float), full_matrices=False)[2].T
        for side, basis in dense.items():
            np.testing.assert_allclose(np.abs((basis * one[name][side]).sum(axis=0)), 1, atol=1e-5)


def test_rows_are_phi_at_powers_of_two_and_its_mean_over_the_layers_of_each_map(trained: Tables, one: Bases) -> None:
    two = subspaces.bases(subspaces.finished(trained)["two"])
    found = subspaces.compare_pairs(trained, [Pair("other", "one", "two", layers=True)])
    cell = found[found["kind"] == "other"].set_index(["map", "layer", "side", "i", "j"])["phi"]
    for which in subspaces.MAPS:
        names = [name for name in one if subspaces.layer_and_map(name)[1] == which]
        assert len(names) == 2
        for side in SIDES:
            phi = [spectra.similarity(one[name][side], two[name][side]) for name in names]
            for i in POWERS:
                for j in POWERS:
                    expected = np.mean([each[i - 1, j - 1] for each in phi])
                    assert cell[which, "all", side, i, j] == pytest.approx(expected, abs=1e-5)
                for each, name in zip(phi, names, strict=True):
                    layer = str(subspaces.layer_and_map(name)[0])
                    assert cell[which, layer, side, i, i] == pytest.approx(each[i - 1, i - 1], abs=1e-5)
    assert len(cell) == 2 * len(SIDES) * (len(POWERS) ** 2 + 2 * len(POWERS))
    assert found["chance"].dropna().tolist() == pytest.approx(
        (found[["i", "j"]].dropna().max(axis=1) / D).tolist(), abs=1e-5
    )


def test_every_run_has_a_row_and_a_pair_with_one_that_diverged_has_none(trained: Tables) -> None:
    found = subspaces.compare_pairs(trained, [Pair("other", "one", "gone"), Pair("other", "one", "two")])
    runs = found[found["kind"] == "run"]
    assert runs["hash"].tolist() == ["one", "two", "later", "gone"] and runs["test/accuracy"].eq(0.5).all()
    pairs = found[found["kind"] == "other"]
    assert set(zip(pairs["hash"], pairs["with"], strict=True)) == {("one", "two")}
    assert set(pairs["status"]) == {"success"} and set(pairs["seed"]) == {0} and pairs["test/accuracy"].isna().all()
    assert list(found) == subspaces.KEPT


def test_a_pair_that_is_there_in_both_orders_counts_once(trained: Tables) -> None:
    once = subspaces.compare_pairs(trained, [Pair("other", "one", "two")])
    twice = subspaces.compare_pairs(trained, [Pair("other", "one", "two"), Pair("other", "two", "one")])
    pd.testing.assert_frame_equal(once, twice)


def test_without_runs_that_ended_well_there_are_rows_of_runs_alone(trained: Tables) -> None:
    left = trained.runs.assign(status="missing").drop(columns=["test/accuracy", "test/loss"])
    found = subspaces.compare_pairs(trained._replace(runs=left), [Pair("other", "one", "two")])
    assert set(found["kind"]) == {"run"} and len(found) == len(left) and list(found) == subspaces.KEPT
    assert subspaces.frozen(subspaces.finished(trained._replace(runs=left)).values()) == {}


def test_the_frozen_weights_are_those_of_the_layers_that_are_adapted(trained: Tables, one: Bases) -> None:
    done = subspaces.finished(trained)
    weights = subspaces.frozen(done.values())
    assert weights.keys() == one.keys() and {W.shape for W in weights.values()} == {(D, D)}
    assert {W.dtype for W in weights.values()} == {np.dtype(float)}


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("bert.encoder.layer.3.attention.self.query", (3, "q")),
        ("model.layers.11.self_attn.v_proj", (11, "v")),
    ],
)
def test_a_layer_is_told_by_its_number_and_its_map(name: str, where: tuple[int, str]) -> None:
    assert subspaces.layer_and_map(name) == where


def test_in_a_ring_of_seeds_each_has_another_and_stands_twice() -> None:
    found = subspaces.following([302, 300, 301, 300])
    assert found == {300: 301, 301: 302, 302: 300}


def test_a_block_is_what_the_directions_share_without_the_first() -> None:
    rng = np.random.default_rng(0)
    U, V = spectra.random_basis(20, 4, rng), spectra.random_basis(20, 8, rng)
    phi = spectra.similarity(U, V)
    cells = pd.MultiIndex.from_product([[1, 2, 4], [1, 2, 4, 8]], names=["i", "j"])
    row = pd.DataFrame([[phi[i - 1, j - 1] for i, j in cells]], columns=cells, index=[300])
    assert subspaces.block(row, 4)[300] == pytest.approx(np.linalg.norm(U[:, 1:4].T @ V[:, 1:4]) ** 2 / 3)


@pytest.fixture
def frame() -> pd.DataFrame:
    """phi of three seeds, 2 x 4 cells, on both maps."""
    rng = np.random.default_rng(0)
    cells = [(s, w, i, j) for s in (300, 301, 302) for w in subspaces.MAPS for i in (1, 2) for j in (1, 2, 4, 8)]
    found = pd.DataFrame(cells, columns=["seed", "map", "i", "j"]).assign(kind="other", side="A", layer="all")
    return found.assign(phi=rng.uniform(size=len(cells)), chance=found[["i", "j"]].max(axis=1) / D)


def test_the_lines_have_their_intervals_and_the_heatmaps_the_means_both_less_chance(frame: pd.DataFrame) -> None:
    from matplotlib import pyplot

    every = pd.concat([frame.assign(side=side) for side in subspaces.SIDES])
    with plotting.style():
        figure = subspaces.panels(every, "shared", "other", [Line("A", "other", "A", "black")], ("i", "j"))
    for row, which in enumerate(subspaces.MAPS):
        line, *heats = cast(Any, figure.axes[4 * row : 4 * row + 4])
        cells = frame[frame["map"] == which].assign(more=frame["phi"] - frame["chance"]).groupby(["i", "j"])["more"]
        for heat in heats:
            np.testing.assert_allclose(heat.images[0].get_array(), cells.mean().to_numpy().reshape(2, 4))
            assert [text.get_text() for text in heat.texts] == [f"{m:.2f}".replace("0.", ".") for m in cells.mean()]
        point, _, (segments,) = line.containers[0]
        for at, i in enumerate((1, 2)):
            expected = mean_interval(cells.get_group((i, i)))
            x, low = segments.get_segments()[at][0]
            assert (x, low) == (i, pytest.approx(expected.low))
            assert point.get_ydata()[at] == pytest.approx(expected.estimate)
    pyplot.close(figure)


def test_a_heatmap_of_many_powers_of_two_has_every_other_one() -> None:
    from matplotlib import pyplot

    _, ax = pyplot.subplots()
    powers = [1, 2, 4, 8, 16, 32, 64]
    subspaces.heatmap(ax, pd.DataFrame(np.eye(7), index=powers, columns=powers))
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "4", "16", "64"] and len(ax.texts) == 16
    pyplot.close()


def test_rows_are_read_and_drawn_without_torch() -> None:
    code = "import sys, loralab.studies.subspaces; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
