"""Which runs a sweep has is noted in the store, and found again."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from loralab.errors import UserError
from loralab.sweeps.study import open_sweep
from loralab.sweeps.sweep_file import SweepFile, find_sweep, sweep_id
from tests.small_runs import SMALL
from tests.small_studies import NAME, SETTINGS, checkout


def noted(store: Path, name: str, *runs: str, at: float = 0.0) -> SweepFile:
    found = SweepFile(sweep_id(name, runs), None, ("seed",), None, runs, began=at)
    found.write(store)
    os.utime(store / "sweeps" / f"{found.id}.json", (at, at))
    return found


def test_what_is_noted_is_found_by_id_hash_and_beginnings(tmp_path: Path) -> None:
    first, second = noted(tmp_path, "first", "a-1", at=1), noted(tmp_path, "sweep", "b-2", at=2)
    assert find_sweep(tmp_path, "last") == second
    for wanted in (first.id, first.id.rpartition("-")[2], "fir", first.id.rpartition("-")[2][:5]):
        assert find_sweep(tmp_path, wanted) == first


def test_a_file_from_before_it_noted_drawn_values_is_read(tmp_path: Path) -> None:
    found = noted(tmp_path, "sweep", "a-1")
    path = tmp_path / "sweeps" / f"{found.id}.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "free"}))
    assert find_sweep(tmp_path, "last") == found
    replace(found, free=True).write(tmp_path)
    assert find_sweep(tmp_path, "last").free


def test_the_same_runs_are_the_same_sweep_in_any_order(tmp_path: Path) -> None:
    assert sweep_id("x", ["a-1", "b-2"]) == sweep_id("x", ["b-2", "a-1", "a-1"]) != sweep_id("x", ["a-1"])
    assert sweep_id("paper/x", ["a"]).startswith("paper_x-")


def test_a_sweep_that_is_not_there_is_one_line_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"sweeps has no sweep yet; .*`loralab sweep all`"):
        find_sweep(tmp_path, "last")
    with pytest.raises(UserError, match=r"^--store: there is no folder"):
        find_sweep(tmp_path / "nope", "last")
    names = [noted(tmp_path, "sweep", f"run-{n}", at=n).id for n in range(8)]
    with pytest.raises(UserError) as caught:
        find_sweep(tmp_path, "nope")
    assert str(caught.value).endswith(f"there are {', '.join(names[:1:-1])} and 2 more")
    with pytest.raises(UserError, match=r"; did you mean last\?$"):
        find_sweep(tmp_path, "lsat")
    with pytest.raises(UserError, match=r"^sweep: 'sweep' names 8 sweeps: "):
        find_sweep(tmp_path, "sweep")


@pytest.mark.parametrize("text", ["{", "3", '{"id": 1}', "runs", "../a"])
def test_a_damaged_file_is_one_line(text: str, tmp_path: Path) -> None:
    found = noted(tmp_path, "sweep", "a-1")
    path = tmp_path / "sweeps" / f"{found.id}.json"
    whole = json.loads(path.read_text())
    if text in ("runs", "../a"):
        text = json.dumps({**whole, "runs": [3 if text == "runs" else text]})
    path.write_text(text)
    with pytest.raises(UserError, match=r"\.json is damaged \("):
        find_sweep(tmp_path, "last")


def test_a_sweep_of_the_command_line_and_a_study_are_noted_with_their_axes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_sweep(["--multirun", *SMALL, f"store={tmp_path}", "lora.ratio=1,4", "seed=0,1"]) as opened:
        found = SweepFile.of(opened)
        assert found.runs == tuple(cell.run for cell in opened.cells())
    assert found.id.startswith("sweep-") and found.axes == ("lora.ratio", "seed") and found.metric is None
    checkout(tmp_path / "checkout", monkeypatch)
    with open_sweep([f"sweeps={NAME}", f"store={tmp_path}", *SETTINGS]) as opened:
        study = SweepFile.of(opened)
    assert study.id.startswith(f"{NAME}-") and study.metric == "validation/loss" and len(study.runs) == 8
    assert study.with_fresh(["a-1"]).fresh == ("a-1",)
