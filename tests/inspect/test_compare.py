"""`loralab compare`: the overlaps equal the spectra's, are shown with chance, and confounds are reported."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from loralab.cli.main import main
from loralab.errors import UserError
from loralab.inspect import compare, spectra
from loralab.inspect.compare import Pair
from loralab.inspect.updates import Adapter, Update
from loralab.runs.run import run
from loralab.store.run_directory import RunDirectory
from tests.small_runs import config

D, K = 40, 30


def update(seed: int, r: int = 5, d: int = D, k: int = K) -> Update:
    rng = np.random.default_rng(seed)
    return Update(rng.standard_normal((r, k)).astype(np.float32), rng.standard_normal((d, r)).astype(np.float32), 2.0)


def adapter(name: str, **updates: Update) -> Adapter:
    return Adapter(name, Path(name), None, {f"m.{layer}": each for layer, each in updates.items()})


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run like `finished`, with another seed."""
    store = tmp_path_factory.mktemp("other")
    run(config(store, "seed=1", "train.steps=2"))
    return RunDirectory(next((store / "runs").iterdir()))


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    out, err = capsys.readouterr()
    return status, out, err


def test_a_pair_has_phi_of_a_and_of_both_sides_of_the_update() -> None:
    one, two = update(0), update(1, r=7)
    (pair,) = compare.compared(adapter("x", q=one), adapter("y", q=two))
    dense = [np.linalg.svd(each.scaling * each.B.astype(float) @ each.A.astype(float)) for each in (one, two)]
    right = spectra.similarity(dense[0].Vh[:5].T, dense[1].Vh[:7].T)
    left = spectra.similarity(dense[0].U[:, :5], dense[1].U[:, :7])
    np.testing.assert_allclose(pair.phi["right"], right, atol=1e-6)
    np.testing.assert_allclose(pair.phi["left"], left, atol=1e-6)
    np.testing.assert_allclose(
        pair.phi["A"], spectra.similarity(spectra.right_basis(one.A), spectra.right_basis(two.A)), atol=1e-9
    )
    assert (pair.ranks, pair.dimension) == ((5, 7), {"A": K, "right": K, "left": D})
    assert pair.at("left", "4,4") == pytest.approx(left[3, 3]) and pair.at("left", "all") == pytest.approx(left[4, 6])
    assert pair.chance("left", "all") == 7 / D and pair.chance("A", "4,4") == 4 / K


def test_an_adapter_against_itself_is_one_everywhere() -> None:
    mine = adapter("x", q=update(0), v=update(1))
    for pair in compare.compared(mine, mine):
        for phi in pair.phi.values():
            np.testing.assert_allclose(phi, 1, atol=1e-9)
    rows = [line.split() for line in compare.table(compare.compared(mine, mine))[2:]]
    assert [row[0] for row in rows] == ["q", "v", "mean"]
    assert rows[0][2:11] == ["1.000"] * 9


def test_two_random_adapters_are_as_alike_as_chance() -> None:
    first = adapter("x", **{f"l{n}": update(n) for n in range(200)})
    second = adapter("y", **{f"l{n}": update(1000 + n) for n in range(200)})
    pairs = compare.compared(first, second)
    for side in compare.SIDES:
        for place in compare.PLACES:
            found = np.array([pair.at(side, place) for pair in pairs], dtype=float)
            chance = pairs[0].chance(side, place)
            assert chance is not None
            assert abs(found.mean() - chance) < 3 * found.std(ddof=1) / np.sqrt(len(found)), (side, place)


def test_the_table_has_means_and_both_chances_where_w_is_not_square() -> None:
    pairs = compare.compared(adapter("x", q=update(0), v=update(1)), adapter("y", q=update(2), v=update(3)))
    titles, places, *rows = (line.split() for line in compare.table(pairs))
    assert titles == ["A", "right", "left", "chance", "in", "chance", "out"]
    assert places == ["layer", "r", *(["1,1", "4,4", "all"] * 5)]
    cells = np.array([row[-15:] for row in rows], dtype=float)
    expected = [[pair.at(side, place) for side in compare.SIDES for place in compare.PLACES] for pair in pairs]
    np.testing.assert_allclose(cells[:2, :9], np.array(expected, dtype=float), atol=5e-4)
    np.testing.assert_allclose(cells[2], cells[:2].mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(cells[0, 9:], [1 / K, 4 / K, 5 / K, 1 / D, 4 / D, 5 / D], atol=5e-4)
    square = compare.compared(adapter("x", q=update(0, d=K)), adapter("y", q=update(1, d=K)))
    assert compare.table(square)[0].split() == ["A", "right", "left", "chance"]


def test_ranks_below_four_and_updates_of_zero_have_dashes() -> None:
    untrained = Update(update(0).A, np.zeros((D, 5), dtype=np.float32), 1.0)
    (low,) = compare.compared(adapter("x", q=update(0, r=2)), adapter("y", q=update(1)))
    assert low.at("A", "4,4") is None and low.chance("A", "4,4") is None
    (empty,) = compare.compared(adapter("x", q=untrained), adapter("y", q=update(1)))
    assert empty.at("A", "all") is not None
    assert [empty.at(side, place) for side in ("right", "left") for place in compare.PLACES] == [None] * 6
    lines = [line.split() for line in compare.table([low])[2:]]
    assert [lines[0][at] for at in (0, 1, 3)] == ["m.q", "2/5", "-"]
    assert compare.table([empty])[2].split()[5:11] == ["-"] * 6
    assert compare.drawn("x", "y", [empty]).axes


def test_what_cannot_be_compared_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^no layer in common: x adapts 'm\.q', \.\.\., and y 'm\.v'"):
        compare.compared(adapter("x", q=update(0)), adapter("y", v=update(0)))
    with pytest.raises(UserError, match=r"^'m\.q' is \(40, 30\) in one and \(40, 20\) in the other: their backbones"):
        compare.compared(adapter("x", q=update(0)), adapter("y", q=update(0, k=20)))


def test_layers_that_one_alone_adapts_are_named() -> None:
    first, second = adapter("x", q=update(0), v=update(1)), adapter("y", q=update(2), k=update(3), o=update(4))
    assert [pair.layer for pair in compare.compared(first, second)] == ["m.q"]
    lines = compare.notes(first, second)
    assert lines[1:] == ["left out, as only x adapts them: m.v", "left out, as only y adapts them: k, o"]


def test_the_figure_shows_the_mean_chance_and_every_layer() -> None:
    pairs = compare.compared(
        adapter("x", q=update(0), v=update(1, r=3), o=update(4)), adapter("y", q=update(2), v=update(3), o=update(5))
    )
    figure = compare.drawn("x", "y", pairs)
    panels = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(panels) == (2 + len(pairs)) * len(compare.SIDES)

    def shown(values: NDArray[np.float64]) -> bool:
        return any(panel is not None and panel.shape == values.shape and np.allclose(panel, values) for panel in panels)

    for side in compare.SIDES:
        assert all(shown(pair.phi[side]) for pair in pairs)
        mean = np.mean([pair.phi[side][:3, :5] for pair in pairs], axis=0)
        assert shown(mean), "over the i and j that all layers have"
        d = pairs[0].dimension[side]
        assert shown(np.array([[max(i, j) / d for j in range(1, 6)] for i in range(1, 4)]))
    assert {axes.images[0].get_clim() for axes in figure.axes if axes.images} == {(0, 1)}


def test_the_command_compares_two_runs_and_writes_the_figure_into_the_store(
    finished: RunDirectory, other: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = said(capsys, "compare", str(finished.path), str(other.path), "--store", str(tmp_path))
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[:2] == [finished.path.name, other.path.name]
    assert [line.split()[0] for line in lines[5:10]] == [
        *(f"{layer}.attention.self.{role}" for layer in (0, 1) for role in ("query", "value")),
        "mean",
    ]
    assert "warning" not in out
    stem = f"compare-{finished.path.name}-{other.path.name}"
    assert lines[-2:] == [str(tmp_path / "figures" / f"{stem}{suffix}") for suffix in (".png", ".pdf")]
    assert all(Path(line).stat().st_size > 1000 for line in lines[-2:])


def test_a_shared_init_seed_is_warned_of(
    finished: RunDirectory, other: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(finished.path), str(finished.adapter)]
    found = json.loads(said(capsys, "compare", *runs, "--json", "--store", str(tmp_path))[1])
    assert found["notes"][1].startswith("warning: both runs drew their factors from init_seed=0, and a shared")
    phi = np.array([layer["phi"][side] for layer in found["layers"] for side in compare.SIDES])
    np.testing.assert_allclose(phi, 1)
    assert not list(tmp_path.iterdir()), "no figure beside JSON"
    apart = json.loads(said(capsys, "compare", str(finished.path), str(other.path), "--json")[1])
    assert len(apart["notes"]) == 1
    assert apart["layers"][0]["ranks"] == [8, 8] and apart["layers"][0]["dimension"]["A"] == 64


def test_pair_places_are_never_a_neighbour() -> None:
    phi = {side: np.arange(1.0, 26).reshape(5, 5) for side in compare.SIDES}
    pair = Pair("q", (5, 5), phi, dict.fromkeys(compare.SIDES, 10))
    assert [pair.at("A", place) for place in compare.PLACES] == [1, 19, 25]
