"""`loralab sweep`: what it prints, and what a mistake in its options says."""

import csv
import io
import json
from pathlib import Path

import pytest

from loralab.sweeps.sweep_file import SweepFile
from tests.cli.test_main import said
from tests.sweeps.made_rows import stored

AXES = ["optim.lr=0.001", "optim.lr=0.002", "optim.lr=0.004"]


@pytest.fixture(scope="module")
def noted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SweepFile]:
    """A store with a sweep of three rates and two seeds, the largest the best; not to be changed."""
    store = tmp_path_factory.mktemp("noted")
    return store, stored(store, lambda axis, seed: 100 * float(axis.partition("=")[2]) + 0.01 * seed, AXES)


def test_the_last_sweep_is_ranked_and_drawn(
    noted: tuple[Path, SweepFile], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, sweep = noted
    to = tmp_path / "mine.png"
    status, out, err = said(capsys, "sweep", "--store", str(store), "--to", str(to))
    head, titles, *rows = out.splitlines()
    assert (status, err) == (0, "") and to.is_file() and to.with_suffix(".pdf").is_file()
    assert head.startswith(
        f"{sweep.id}: 3 configurations, ranked by validation/accuracy: mean over 2 seeds, ± standard"
    )
    assert titles.split() == ["lr", "validation/accuracy", "±", "validation/loss", "runs"]
    assert [row.split() for row in rows[:3]] == [
        ["0.004", "0.4050", "0.0071", "0.5950", "2"],
        ["0.002", "0.2050", "0.0071", "0.7950", "2"],
        ["0.001", "0.1050", "0.0071", "0.8950", "2"],
    ]
    assert rows[3:5] == [
        "the best: optim.lr=0.004",
        "the best lies at the edge of optim.lr: 0.004 is the largest of 3 tried; try larger ones",
    ]
    assert rows[5].startswith("train it: python train.py model=tiny ") and "optim.lr=0.004" in rows[5]
    assert rows[5].endswith(f" store={store}") and rows[6:] == [str(to), str(to.with_suffix(".pdf"))]


def test_a_ranking_by_another_score_and_of_some_runs(
    noted: tuple[Path, SweepFile], capsys: pytest.CaptureFixture[str]
) -> None:
    store, sweep = noted
    status, out, _ = said(capsys, "sweep", sweep.id, "--metric", "loss", "--where", "lr<0.003", "--limit", "1",
                          "--store", str(store), "--to", str(store / "one.png"))  # fmt: skip
    lines = out.splitlines()
    assert status == 0 and "2 configurations, ranked by validation/loss" in lines[0]
    assert lines[2].split()[0] == "0.002" and lines[3] == "1 of 2 are listed"


def test_programs_get_every_number_and_no_figure(
    noted: tuple[Path, SweepFile], capsys: pytest.CaptureFixture[str]
) -> None:
    store, sweep = noted
    (given,) = json.loads(said(capsys, "sweep", "last", "--json", "--store", str(store))[1])
    assert (given["sweep"], given["metric"], given["axes"]) == (sweep.id, "validation/accuracy", ["optim.lr"])
    assert [each["settings"]["optim.lr"] for each in given["configurations"]] == [0.004, 0.002, 0.001]
    assert (
        given["configurations"][0]["values"] == pytest.approx([0.4, 0.41])
        and len(given["configurations"][0]["runs"]) == 2
    )
    assert given["edges"] == [{"axis": "optim.lr", "value": 0.004, "largest": True}]
    rows = list(csv.DictReader(io.StringIO(said(capsys, "sweep", "last", "--csv", "--store", str(store))[1])))
    assert [(row["optim.lr"], row["done"], row["runs"]) for row in rows] == [
        ("0.004", "2", "2"), ("0.002", "2", "2"), ("0.001", "2", "2"),
    ]  # fmt: skip
    assert float(rows[0]["validation/loss"]) == pytest.approx(0.595)
    assert not (store / "figures").exists()


def test_all_runs_of_a_store_are_one_sweep(noted: tuple[Path, SweepFile], capsys: pytest.CaptureFixture[str]) -> None:
    store, _ = noted
    (given,) = json.loads(said(capsys, "sweep", "all", "--json", "--store", str(store))[1])
    assert given["sweep"] == "sweep-all" and len(given["configurations"]) == 3


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("nope",), "sweep: no sweep is called 'nope' in "),
        (("--metric", "los"), "--metric: got 'los'; the runs have validation/accuracy, "),
        (("--metric", "test/accuracy"), "--metric: got 'test/accuracy'; the runs have "),
        (("--where", "optim.lr=7"), "--where: no run has optim.lr=7; optim.lr is 0.001, 0.002, 0.004 there"),
        (("--where", "lora.rnk=7"), "--where: lora.rnk: no such key; did you mean lora.rank?"),
        (("--to", "/"), "--to: got '/', which names a folder"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: tuple[str, ...], line: str, noted: tuple[Path, SweepFile], capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = said(capsys, "sweep", *arguments, "--store", str(noted[0]))
    assert status == 2 and err.startswith(f"error: {line}") and err.count("\n") == 1


def test_a_sweep_that_has_just_begun_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = stored(tmp_path, lambda *_: None, AXES)
    status, out, err = said(capsys, "sweep", "--store", str(tmp_path))
    assert (status, out) == (2, "")
    assert err == f"error: sweep: no run of {sweep.id} has ended in success yet; `loralab runs` shows how they are\n"
