"""Laws of a study's tables: what Python loads and what the command saves are one, and no run is left out of either."""

import io
import shutil
from pathlib import Path

import pandas as pd
import pytest

import loralab
from loralab.cli import main
from loralab.collect import curves, table
from loralab.errors import UserError
from loralab.record import fail
from loralab.results import load_study, reduced, save, target
from loralab.study import open_study
from tests.studies import FIRST, NAME, SETTINGS, checkout, first_stage

REDUCER = """
def reduce(found):
    return found.runs.groupby("lora.ratio", as_index=False)["validation/loss"].mean()
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The study of two stages is the one there is; its checkout."""
    return checkout(tmp_path / "checkout", monkeypatch)


@pytest.fixture
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return first_stage(tmp_path_factory)


@pytest.fixture
def holes(done: Path, tmp_path: Path) -> Path:
    """A store in which one run failed and one is not there."""
    shutil.copytree(done, tmp_path / "holes")
    with open_study(NAME, SETTINGS, store=tmp_path / "holes") as study:
        for job in study.grid[:2]:
            shutil.rmtree(study.planned(job).directory.path)
        fail(study.planned(study.grid[0]), "RuntimeError: out of luck", started=0.0)
    return tmp_path / "holes"


def test_a_study_loads_as_tables_of_its_runs_and_its_curves(done: Path) -> None:
    found = loralab.load_study(NAME, *SETTINGS, store=done)
    with open_study(NAME, SETTINGS, store=done) as study:
        pd.testing.assert_frame_equal(found.runs, table(done, study.cells()))
        pd.testing.assert_frame_equal(found.curves, curves(done, study.cells()))
    runs = found.runs
    assert len(runs) == 12 and runs["status"].value_counts().to_dict() == {"success": 8, "missing": 4}
    grid = runs[runs["stage"] == "grid"]
    assert list(grid[["seed", "lora.ratio", "optim.lr"]].itertuples(index=False, name=None)) == FIRST
    trained = found.curves[found.curves["split"] == "train"]
    assert trained.groupby("run").size().tolist() == [3] * 8


def test_overrides_pin_what_is_loaded(done: Path) -> None:
    runs = load_study(NAME, *SETTINGS, "seed=1", store=str(done)).runs
    assert len(runs[runs["stage"] == "grid"]) == 4 and "seed" not in runs.columns[3:5]


def test_the_store_is_the_environments_where_none_is_named(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORALAB_STORE", str(done))
    assert set(load_study(NAME, *SETTINGS).runs["status"]) == {"success", "missing"}


def test_a_study_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no study is called 'nope'; sweeps/ has two_stages"):
        load_study("nope", store=tmp_path)


def test_collect_saves_what_python_loads_with_a_row_for_what_is_not_done(
    holes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "deep" / "mine.csv"
    assert main(["collect", NAME, *SETTINGS, "--store", str(holes), "--to", str(to)]) == 0
    out, err = capsys.readouterr()
    assert (out.splitlines()[0], err) == (f"8 runs (6 success, 1 failed, 1 missing) in {to}", "")
    found = pd.read_csv(to, dtype={"hash": str, "commit": str, "diff": str})
    runs = load_study(NAME, *SETTINGS, store=holes).runs
    assert list(found.columns) == list(runs.columns)
    assert found["status"].tolist() == runs["status"].tolist() == ["failed", "missing", *["success"] * 6]
    assert found["error"][0] == "RuntimeError: out of luck"
    assert found["hash"].tolist() == runs["hash"].tolist()
    for name in ("validation/loss", "test/accuracy", "optim.lr", "started", "seconds"):
        pd.testing.assert_series_equal(found[name], runs[name].astype(float), rtol=1e-9)
    assert found["validation/loss"].isna().tolist() == [True, True, *[False] * 6]


def test_collect_reduces_as_the_studys_analysis_says(done: Path, root: Path, tmp_path: Path) -> None:
    (root / "analysis").mkdir()
    (root / "analysis" / f"{NAME}.py").write_text(REDUCER)
    assert main(["collect", NAME, *SETTINGS, "--store", str(done), "--to", str(tmp_path / "small.csv")]) == 0
    found = pd.read_csv(tmp_path / "small.csv")
    runs = load_study(NAME, *SETTINGS, store=done).runs
    assert found.columns.tolist() == ["lora.ratio", "validation/loss"] and found["lora.ratio"].tolist() == [1, 16]
    ratio_one = runs.loc[(runs["lora.ratio"] == 1) & (runs["status"] == "success"), "validation/loss"]
    assert found["validation/loss"][0] == pytest.approx(ratio_one.mean(), rel=1e-9)


def test_without_an_analysis_the_runs_are_what_is_saved(done: Path) -> None:
    found = load_study(NAME, *SETTINGS, store=done)
    assert reduced(NAME, found) is found.runs


def test_only_the_whole_study_is_saved_where_its_figure_is_drawn_from(root: Path, tmp_path: Path) -> None:
    assert target(NAME, (), tmp_path) == root / "analysis" / "results" / f"{NAME}.csv"
    assert target(NAME, ("seed=0", "model.path=a/b"), tmp_path) == (
        tmp_path / "results" / f"{NAME} seed=0 model.path=a_b.csv"
    )


def test_however_many_settings_there_are_the_file_has_a_name_of_its_own(tmp_path: Path) -> None:
    some, others = (target(NAME, [f"lora.alpha={i}" for i in range(first, 50)], tmp_path) for first in (0, 1))
    assert some != others
    for path in (some, others):
        save(pd.DataFrame({"a": [1]}), path)
        assert path.is_file() and path.name.startswith(NAME)


def test_a_saved_table_keeps_ten_digits_and_what_is_missing_is_empty(tmp_path: Path) -> None:
    save(pd.DataFrame({"started": [1790000000.25, None], "loss": [1 / 3, 2e-7], "seed": [1, 2]}), tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == "started,loss,seed\n1790000000,0.3333333333,1\n,2e-07,2\n"


def test_a_folder_is_no_place_for_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"--to: .* is a directory; name a file"):
        save(pd.read_csv(io.StringIO("a\n1\n")), tmp_path)
