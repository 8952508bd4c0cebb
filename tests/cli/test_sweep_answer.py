"""What a sweep prints when it ends."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from loralab.cli.sweep_answer import answer, conclude, figure_file, rows_of_sweep, store_option
from loralab.sweeps.ranking import rankings
from loralab.sweeps.study import open_study
from loralab.sweeps.sweep_file import SweepFile
from tests.small_studies import NAME, SETTINGS, TEXT, checkout, first_stage
from tests.sweeps.made_rows import grid, row, stored

AXES = ["lora.ratio=1", "lora.ratio=4", "lora.ratio=16"]


def lines(rows: list, limit: int | None = None, width: int | None = None) -> list[str]:  # type: ignore[type-arg]
    found = rankings(rows, metric=None)
    return [
        each for each in answer(found, "sweep-x", rows, store=Path(), width=width, limit=limit, more="; more") if each
    ]


@pytest.fixture(autouse=True)
def _no_command(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "store" not in request.node.name:  # rows without a store have no config
        monkeypatch.setattr("loralab.cli.sweep_answer._command", lambda *_: "python train.py")


def test_ten_are_listed_and_the_line_says_how_to_see_all() -> None:
    found = lines(grid(lambda optim__lr: optim__lr, optim__lr=[n / 100 for n in range(1, 13)]), limit=10)
    assert found[12] == "10 of 12 are listed; more" and found[2].split()[0] == "0.12"
    assert "one seed each: nothing says how much of the difference is chance" in found


def test_what_is_not_done_is_said_first() -> None:
    rows = [
        *grid(lambda optim__lr: optim__lr, seeds=2, optim__lr=[0.1, 0.2]),
        row(None, status="failed", optim__lr=0.3),
    ]
    rows[0] = row(None, status="running", seed=0, optim__lr=0.1)
    found = lines(rows)
    assert found[0] == "2 of 5 runs are not done (1 running, 1 failed); this is what is there"
    assert [line.split()[-1] for line in found[3:6]] == ["2", "1/2", "0/1"]


def test_a_diverged_configuration_says_so() -> None:
    rows = [row(0.5, optim__lr=0.1), row(None, status="diverged", optim__lr=0.2)]
    assert lines(rows)[3].split() == ["0.2", "diverged", "1"]
    every = [row(None, status="diverged", optim__lr=rate) for rate in (0.1, 0.2)]
    assert lines(every)[-1] == "every configuration has a run that diverged; try smaller learning rates"


def test_each_task_has_its_own_best() -> None:
    rows = grid(lambda task, optim__lr: optim__lr, task=["trec", "imdb"], optim__lr=[0.1, 0.2, 0.3])
    found = lines(rows, limit=2)
    assert [line.split(":")[0] for line in found if "configurations" in line] == ["sweep-x, trec", "sweep-x, imdb"]
    assert found.count("the best: optim.lr=0.3") == 2 and found.count("2 of 3 are listed; more") == 2


def test_a_narrow_terminal_has_the_score_and_the_axes() -> None:
    rows = [row(0.5 + n, lora__rank=n, lora__alpha=2.0 * n, seed=s) for n in (1, 2) for s in (0, 1)]
    found = lines(rows, width=32)
    assert found[1].split() == ["rank", "validation/accuracy"]
    assert found[4] == "no room for runs, alpha, ±; --csv and --json have all"


def test_the_end_of_a_stored_sweep_names_the_command_and_the_figure_which_is_drawn_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = stored(tmp_path, lambda axis, seed: 0.5 + 0.01 * seed, AXES)
    conclude(sweep, tmp_path, None)
    out = capsys.readouterr().out.splitlines()
    file = figure_file(tmp_path, sweep.id)
    assert out[0] == "" and out[-1] == f"figure: {file}" and out[-2].startswith("train it: python train.py model=tiny ")
    os.utime(file, (0.5, 0.5))  # these runs ended a second after the epoch
    conclude(sweep, tmp_path, None)
    assert file.stat().st_mtime > 1
    before = file.stat().st_mtime_ns
    conclude(sweep, tmp_path, None)
    assert file.stat().st_mtime_ns == before, "no run has ended since"


def test_the_end_of_a_stored_sweep_never_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = stored(tmp_path, lambda axis, seed: 0.5, AXES)
    (tmp_path / "figures").write_text("a file where the folder of figures belongs")
    conclude(sweep, tmp_path, None)
    err = capsys.readouterr().err
    assert err.startswith("warning: ") and err.count("\n") == 1


def test_the_end_of_a_stored_study_names_the_command_of_its_verdicts_unless_that_is_under_way(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = first_stage(tmp_path_factory)
    folder = checkout(tmp_path / "checkout", monkeypatch)
    file = folder / "sweeps" / f"{NAME}.yaml"
    capsys.readouterr()  # of the training
    for has_second, has_analysis in ((False, False), (True, True), (False, True)):
        (folder / "analysis").mkdir(exist_ok=True)
        (folder / "analysis" / f"{NAME if has_analysis else 'other'}.py").write_text("")
        file.write_text(TEXT if has_second else re.sub(r"    confirm:\n(?:      .*\n)+", "", TEXT))
        with open_study(NAME, SETTINGS, store=store) as study:
            conclude(SweepFile.of(study), store, study)
            assert study.store == store
    ends = [each.splitlines()[-1] for each in capsys.readouterr().out.strip().split("\n\n")]
    verdicts = f"its figure and its verdicts: loralab study {NAME} {' '.join(SETTINGS)} --store {store}"
    assert [end == verdicts for end in ends] == [False, False, True], "the second has runs to train"
    with open_study(NAME, SETTINGS, store=store) as study:
        conclude(SweepFile.of(study), store, None)
    assert "verdicts" not in capsys.readouterr().out and not (store / "figures").exists()


def test_a_store_without_a_success_has_no_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = stored(tmp_path, lambda *_: None, AXES)
    conclude(sweep, tmp_path, None)
    assert capsys.readouterr() == ("", "")
    assert [each.standing.status for each in rows_of_sweep(sweep, tmp_path)] == ["missing"] * 6


def test_another_store_than_the_default_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORALAB_STORE", str(tmp_path))
    assert store_option(tmp_path) == ""
    assert store_option(tmp_path / "a b") == f" --store '{tmp_path / 'a b'}'"


def test_a_ranking_imports_neither_matplotlib_nor_torch_nor_pandas() -> None:
    code = "import sys, loralab.cli.sweep; assert not {'matplotlib', 'torch', 'pandas', 'hydra'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
