"""A study's tables: one row for each run, finished or not, and one row for each logged value."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

import loralab
from loralab.errors import UserError
from loralab.store.predictions import unpacked
from loralab.studies.tables import load_study
from loralab.sweeps.collect import curves, table
from loralab.sweeps.study import open_study
from tests.small_studies import FIRST, NAME, SETTINGS, checkout, first_stage


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with only the study of two stages."""
    return checkout(tmp_path / "checkout", monkeypatch)


@pytest.fixture
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return first_stage(tmp_path_factory)


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


def test_what_a_run_got_right_is_read_of_its_last_step(done: Path) -> None:
    found = load_study(NAME, *SETTINGS, store=done)
    for run, accuracy in zip(found.runs["run"], found.runs["test/accuracy"], strict=True):
        text = found.correct(run)
        assert text == "" if pd.isna(accuracy) else unpacked(text).mean() == pytest.approx(accuracy)
    assert found.runs["test/accuracy"].notna().sum() == 8


def test_a_run_with_damaged_metrics_is_told_and_hides_no_other(done: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(done, store)
    whole = load_study(NAME, *SETTINGS, store=store)
    run = whole.curves["run"].iloc[0]
    path = store / "runs" / run / "metrics.jsonl"
    path.write_bytes(b"\xff\n" + path.read_bytes())
    found = load_study(NAME, *SETTINGS, store=store)
    mine = found.runs[found.runs["run"] == run].iloc[0]
    assert mine["status"] == "damaged" and "metrics.jsonl, line 1 is damaged" in mine["error"]
    assert set(found.curves["run"]) == set(whole.curves["run"]) - {run}


def test_damaged_predictions_are_one_line(done: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(done, store)
    found = load_study(NAME, *SETTINGS, store=store)
    run = found.curves["run"].iloc[0]
    path = store / "runs" / run / "predictions.parquet"
    for content in (b"", b"text", path.read_bytes()[:200]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"predictions\.parquet is damaged \(.*\); remove "):
            found.correct(run)


def test_a_study_that_is_not_trained_has_its_columns_and_says_what_trains_it(tmp_path: Path) -> None:
    for store in (tmp_path, first_stage_begun(tmp_path / "begun")):
        with pytest.warns(UserWarning, match=f"no run of sweeps/{NAME}.yaml is finished there.*train.* sweeps={NAME}"):
            found = load_study(NAME, *SETTINGS, store=store)
        assert len(found.runs) == 8 and not found.runs["status"].isin(["success", "diverged"]).any()
        assert found.runs[["train/loss", "validation/loss", "test/loss"]].isna().all(axis=None)
        assert found.curves.empty and {"lora.ratio", "seed", "step", "name", "value"} <= set(found.curves)


def first_stage_begun(store: Path) -> Path:
    """A store in which one of the runs was cut off before its first step."""
    with open_study(NAME, SETTINGS, store=store) as study:
        directory = study.planned(study.grid[0]).directory.path
    directory.mkdir(parents=True)
    (directory / "config.yaml").touch()
    return store
