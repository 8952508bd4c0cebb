"""The `loralab` commands for studies: the files that they write, their output, and their exit status."""

import shlex
from pathlib import Path

import pytest

from loralab.entries import process
from loralab.studies import results, study_module
from tests.cli.test_main import said
from tests.small_studies import NAME, SETTINGS, checkout, first_stage

DRAW = "def draw(frame):\n    import matplotlib.pyplot as plt\n    return plt.subplots()[0]\n"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = checkout(tmp_path / "checkout", monkeypatch)
    (found / "analysis").mkdir()
    (found / "analysis" / f"{NAME}.py").write_text(DRAW)
    return found


def test_a_study_is_trained_with_its_settings_and_stops_where_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called: list[list[str]] = []

    class Failed:
        def __init__(self, command: list[str]) -> None:
            called.append(command)

        def wait(self) -> int:
            return 130

    monkeypatch.setattr("subprocess.Popen", Failed)
    store = tmp_path / "a store"
    assert said(capsys, "study", NAME, "seed=0", "--store", str(store)) == (130, "", "")
    assert called[0] == [*process("train"), f"sweeps={NAME}", f"store='{store}'", "seed=0"]


@pytest.mark.parametrize("command", ["status", "collect"])
def test_a_command_says_how_many_runs_are_done(
    command: str, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = first_stage(tmp_path_factory)
    capsys.readouterr()
    to = ("--to", str(tmp_path / "mine.csv")) if command == "collect" else ()
    status, out, err = said(capsys, command, NAME, *SETTINGS, *to, "--store", str(store))
    assert (status, err) == (0, "") and "8 success" in out and "4 missing" in out


def test_a_figure_that_lacks_runs_is_a_mistake_and_one_of_none_is_no_failure(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = first_stage(tmp_path_factory)
    assert results.target(NAME, (), store) == study_module.ANALYSIS / "results" / f"{NAME}.csv"
    status, out, err = said(capsys, "figure", NAME, "--store", str(store))
    assert (status, out) == (2, "") and err.endswith(f"is not there; `loralab study {NAME}` makes it\n")
    assert said(capsys, "figure", "all") == (0, "", "")


@pytest.mark.parametrize("store", ["new", "empty"])
def test_a_study_of_which_no_run_is_finished_says_how_to_train_them(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also if another run is there."""
    if store == "empty":
        (tmp_path / store / "runs" / "other").mkdir(parents=True)
        (tmp_path / store / "runs" / "other" / "config.yaml").touch()
    to = tmp_path / "mine.csv"
    status, out, err = said(capsys, "collect", NAME, *SETTINGS, "--store", str(tmp_path / store), "--to", str(to))
    assert (status, out) == (2, "") and not to.exists()
    words = shlex.join([f"sweeps={NAME}", f"store={tmp_path / store}", *SETTINGS])
    assert f"no run of sweeps/{NAME}.yaml is finished there" in err
    assert err.endswith(f"; train them: python train.py {words}\n")
    assert err.count("\n") == 1
