"""Thinned curves: ten numbers of a run, each from the last validation not after its share of the steps."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from loralab.runs.plan import plan
from loralab.runs.run import run
from loralab.studies.thinned_curves import SHARES, curve, curve_columns, is_curve, with_curves
from loralab.sweeps.cell import Cell
from loralab.sweeps.collect import curves, table
from tests.small_runs import config

OFTEN = ("train.steps=10", "train.eval_every=1")
FIVE = ("train.steps=10", "train.eval_every=2")  # 2, 4, ..., 10: none at 10%
SELDOM = ("train.steps=10", "train.eval_every=5")
BLOWN_UP = ("optim.lr=1e6", "optim.clip=null", "optim.warmup=0", "train.steps=40", "train.eval_every=1")
FIRST_STEP = ("train.steps=10", "train.eval_every=2", "train.eval_first=true")
OF_EPOCHS = ("train.steps=null", "train.epochs=2.5", "train.batch_size=16", "train.eval_every=2")  # 10 steps
RUNS = {"often": OFTEN, "five": FIVE, "seldom": SELDOM, "blown up": BLOWN_UP, "first": FIRST_STEP, "epochs": OF_EPOCHS}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame, Path]:
    """The runs, indexed by their key of RUNS, their curves, and their store."""
    store = tmp_path_factory.mktemp("store")
    cells = []
    for overrides in RUNS.values():
        run(config(store, *overrides))
        cells.append(Cell(overrides, {}, "grid", plan(config(store, *overrides)).directory.path.name))
    return table(store, cells).set_index(pd.Index(list(RUNS))), curves(store, cells), store


@pytest.fixture(scope="module")
def thinned(tables: tuple[pd.DataFrame, pd.DataFrame, Path]) -> pd.DataFrame:
    return with_curves(*tables)


def logged(store: Path, run: str, metric: str) -> dict[int, float]:
    """The validations in a run's metrics.jsonl, by step."""
    lines = map(json.loads, (store / "runs" / run / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["values"][metric] for line in lines if line["split"] == "validation"}


@pytest.mark.parametrize("name", ["often", "five", "first", "epochs"])
@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_a_share_has_the_last_validation_not_after_it(
    name: str, metric: str, tables: tuple[pd.DataFrame, pd.DataFrame, Path], thinned: pd.DataFrame
) -> None:
    runs, _, store = tables
    own = logged(store, str(runs.loc[name, "run"]), metric)
    for tenth, share in enumerate(SHARES, start=1):  # a tenth is a step
        before = [step for step in own if step <= tenth]
        value = float(str(thinned.loc[name, f"validation/{metric}@{share:g}"]))
        assert value == own[max(before)] if before else math.isnan(value), (share, value)
    assert own[10] == thinned.loc[name, f"validation/{metric}"]


def test_a_run_with_fewer_than_five_validations_has_no_curve(thinned: pd.DataFrame) -> None:
    assert thinned.loc["seldom", curve_columns(thinned)].isna().all()
    assert [share for share, _ in curve(thinned.loc[["seldom"]].iloc[0])] == [1.0]


def test_a_diverged_run_has_its_curve_up_to_where_it_ended(
    tables: tuple[pd.DataFrame, pd.DataFrame, Path], thinned: pd.DataFrame
) -> None:
    store = tables[2]
    row = thinned[thinned["status"] == "diverged"].iloc[0]
    reached = int(row["step"])
    own = logged(store, str(row["run"]), "loss")
    assert 0 < reached < 36
    steps = {share: round(share * 40) for share in SHARES}
    assert dict(curve(row)) == {share: own[step] for share, step in steps.items() if step < reached}


def test_runs_that_were_seldom_validated_get_no_columns(tables: tuple[pd.DataFrame, pd.DataFrame, Path]) -> None:
    runs, long, store = tables
    few = runs.loc[["seldom", "blown up"]]
    pd.testing.assert_frame_equal(with_curves(few, long[long["run"] == few.loc["seldom", "run"]], store), few)


def test_a_row_gives_its_curve_back(tables: tuple[pd.DataFrame, pd.DataFrame, Path], thinned: pd.DataFrame) -> None:
    runs, _, store = tables
    own = logged(store, str(runs.loc["five", "run"]), "loss")
    assert curve(thinned.loc[["five"]].iloc[0]) == tuple((tenth / 10, own[tenth - tenth % 2]) for tenth in range(2, 11))
    assert curve({"validation/loss@0.2": 1.5, "validation/loss@0.1": 2.0}) == ((0.1, 2.0), (0.2, 1.5))


def test_columns_of_curves_are_told_from_scores() -> None:
    assert is_curve("validation/loss@0.1") and is_curve("validation/pearson@0.9")
    assert not any(map(is_curve, ("validation/loss", "test/loss@0.1", "validation/precision@1", "optim.lr")))
