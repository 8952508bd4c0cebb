"""A study's status: every run, its state, and the time that the remaining runs will take."""

import re
import shutil
from pathlib import Path

import pytest

from loralab.cli.main import main
from loralab.runs.record import as_yaml, fail
from loralab.runs.run import run
from loralab.sweeps.status import forecast, state
from loralab.sweeps.study import open_study
from tests.small_studies import FIRST, NAME, SETTINGS, checkout, first_stage

PLACES = "hydra.launcher.slots=3"


@pytest.fixture(autouse=True)
def _ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the study of two stages the only one."""
    checkout(tmp_path / "checkout", monkeypatch)


@pytest.fixture
def store(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the first stage finished, except for a failed run, an interrupted one, and a missing one."""
    store = tmp_path / "store"
    shutil.copytree(first_stage(tmp_path_factory), store)
    with open_study(NAME, SETTINGS, store=store) as study:
        failed, cut, missing = (study.planned(job) for job in study.grid[:3])
    for planned in (failed, cut, missing):
        shutil.rmtree(planned.directory.path)
    fail(failed, "Traceback\nRuntimeError: out of luck\n", started=0.0)
    cut.directory.begin(as_yaml(cut.config))
    return store


def lines(store: Path, *overrides: str, of: str = "forecast") -> list[str]:
    with open_study(NAME, (*SETTINGS, PLACES, *overrides), store=store) as study:
        return forecast(study) if of == "forecast" else state(study)


def rows(printed: list[str]) -> list[list[str]]:
    """The table's lines, split into words."""
    begin = next(i for i, line in enumerate(printed) if line.startswith("run "))
    return [line.split() for line in printed[begin + 1 : printed.index("", begin)]]


def test_a_forecast_of_nothing_has_a_line_for_each_run_and_claims_no_time(tmp_path: Path) -> None:
    printed = lines(tmp_path / "empty")
    assert printed[:5] == [
        "study two_stages",
        "  claim: A ratio of 16 reaches a lower loss.",
        "  metric: validation/loss",
        "  cost: 12 runs, seconds",
        "",
    ]
    table = rows(printed)
    assert [row[1] for row in table] == ["missing"] * 8 and [row[-1] for row in table] == ["?"] * 8
    assert [(int(row[2]), int(row[3]), float(row[4])) for row in table] == FIRST
    size = r"\d+\.\d MB"
    assert re.fullmatch(
        rf"peak memory of a step: about {size} \(frozen weights {size}, trained {size}, activations {size}\) at "
        r"\d+ x \d+ tokens, beside the libraries' own",
        printed[-4],
    )
    assert printed[-3:-1] == [
        "8 runs: 8 missing",
        "8 runs to train; no similar past run gives an estimate of the time",
    ]
    assert re.fullmatch(
        r"second stage: 4 runs on fresh seeds, 2 for the best of each of 2 arms \(lora.ratio\); but 8 .*", printed[-1]
    )


def test_a_forecast_tells_how_each_run_stands_and_what_the_rest_will_take(store: Path) -> None:
    table = rows(lines(store))
    assert [row[1] for row in table[:3]] == ["failed", "cut", "missing"]  # interrupted
    assert [row[1] for row in table[3:]] == ["success"] * 5
    for row in table[:3]:
        assert re.fullmatch(r"\d+", row[-2]) and row[-1] == "s"
    assert all(row[-1] == row[4] for row in table[3:]), "nothing after the axes: what is done takes no time"
    assert any(re.fullmatch(r"3 runs to train, 3 at a time: about \d+ s", line) for line in lines(store))
    packed = lines(store, "hydra.launcher.pack=4")
    assert any(line.startswith("3 runs to train, in packs of at most 4, 3 at a time: about ") for line in packed)


@pytest.mark.slow
def test_memory_is_that_of_the_run_that_takes_most(tmp_path: Path) -> None:
    def peak(*overrides: str) -> str:
        return next(line for line in lines(tmp_path / "empty", *overrides) if line.startswith("peak memory"))

    assert peak("train.batch_size=2,8") == peak("train.batch_size=8") != peak("train.batch_size=2")


def test_a_backbone_that_cannot_be_predicted_is_said_to_be_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loralab.runs.memory.predicted", lambda planned: None)
    assert "peak memory of a step: not known before the backbone is read" in lines(tmp_path / "empty")


def test_a_finished_first_stage_shows_what_was_selected(tmp_path_factory: pytest.TempPathFactory) -> None:
    done = first_stage(tmp_path_factory)
    printed = lines(done)
    assert [row[1] for row in rows(printed)] == ["success"] * 8 + ["missing"] * 4
    with open_study(NAME, SETTINGS, store=done) as study:
        chosen = study.chosen()
    begin = printed.index("selected by validation/loss, for 2 fresh runs each:")
    for line, each in zip(printed[begin + 1 : begin + 3], chosen, strict=True):
        assert line.split() == [f"lora.ratio={each['lora.ratio']}", f"optim.lr={each['optim.lr']}"]


def test_the_state_has_a_line_for_each_run_that_wants_attention(store: Path) -> None:
    printed = lines(store, of="state")
    assert "8 runs: 5 success, 1 failed, 1 cut off, 1 missing" in printed
    begin = next(i for i, line in enumerate(printed) if line.startswith("run "))
    failed, cut = printed[begin + 1 : begin + 3]
    assert re.fullmatch(
        r"[0-9a-f]{10}  failed +0 +seed=0 lora.ratio=1 optim.lr=0.001 +RuntimeError: out of luck", failed
    )
    assert re.fullmatch(r"[0-9a-f]{10}  cut off +0 +seed=0 lora.ratio=1 optim.lr=0.004", cut)
    assert printed[begin + 3 :] == []


def test_to_look_at_a_study_makes_no_store(tmp_path: Path) -> None:
    for of in ("state", "forecast"):
        lines(tmp_path / "store", of=of)
        assert not (tmp_path / "store").exists()


def untouched(store: Path) -> dict[Path, int]:
    """Each file's modification time, or a lock's size: some releases of filelock touch a lock when they check it."""
    found = {}
    for path in store.rglob("*"):
        found[path] = path.stat().st_size if path.suffix == ".lock" else path.stat().st_mtime_ns
    return found


def test_to_look_at_a_store_needs_not_write_to_it(store: Path) -> None:
    """A cache path that cannot exist acts as a read-only cache, also for root."""
    shutil.rmtree(store / "cache")
    before = lines(store, of="state")
    assert list((store / "cache").rglob("*")), "it wanted to write"
    shutil.rmtree(store / "cache")
    (store / "cache").touch()
    there = untouched(store)
    assert lines(store, of="state") == before
    assert untouched(store) == there


def test_what_is_pinned_is_all_that_is_told(store: Path) -> None:
    """All runs with this seed are finished, so the second stage is known too."""
    assert "8 runs: 4 success, 4 missing" in lines(store, "seed=1", of="state")
    assert "4 runs: 1 failed, 1 cut off, 1 missing, 1 success" in lines(store, "seed=0", of="state")


def test_the_status_command_prints_the_state(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", NAME, *SETTINGS, PLACES, "--store", str(store)]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == lines(store, of="state") and err == ""
    assert main(["status", "tow_stages", "--store", str(store)]) == 2
    assert (
        capsys.readouterr().err
        == "error: no study is called 'tow_stages'; did you mean two_stages? sweeps/ has two_stages\n"
    )
    assert main(["status", NAME, "lora.nope=1", "--store", str(store)]) == 2
    assert capsys.readouterr().err.startswith("error: lora.nope: no such key")


def test_a_paused_run_is_done_for_a_study_that_pauses_it_and_to_be_trained_for_one_that_does_not(store: Path) -> None:
    with open_study(NAME, (*SETTINGS, "train.pause_at=2"), store=store) as study:
        run(study.planned(study.grid[0]).config)
    paused = rows(lines(store, "train.pause_at=2"))[0]
    assert paused[1] == "paused" and paused[-1] == paused[4], "nothing after the axes"
    going_on = rows(lines(store))[0]
    assert going_on[1] == "paused" and going_on[-1] == "s"
    assert "8 runs: 5 success, 1 paused, 1 cut off, 1 missing" in lines(store, of="state")
    line = next(line for line in lines(store, of="state") if re.match(r"[0-9a-f]{10}  paused", line))
    assert re.fullmatch(r"[0-9a-f]{10}  paused +2 +seed=0 lora.ratio=1 optim.lr=0.001", line.rstrip())
    assert any(line.startswith("2 runs to train") for line in lines(store, "train.pause_at=2"))
    assert any(line.startswith("3 runs to train") for line in lines(store))
