"""The `loralab` commands for studies: the files that they write, their output, and their exit status."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from loralab import places
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
    assert called[0] == [*process("train"), f"sweeps={NAME}", f"store='{store}'", "hydra.sweeper.inside=true", "seed=0"]


@pytest.mark.parametrize("command", ["status", "collect"])
def test_a_command_says_how_many_runs_are_done(
    command: str, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = first_stage(tmp_path_factory)
    capsys.readouterr()
    to = ("--to", str(tmp_path / "mine.csv")) if command == "collect" else ()
    status, out, err = said(capsys, command, NAME, *SETTINGS, *to, "--store", str(store))
    assert (status, err) == (0, "") and "8 success" in out and "4 missing" in out


@pytest.mark.parametrize("command", ["status", "collect"])
def test_the_store_is_given_as_an_option_or_as_train_has_it(
    command: str, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = first_stage(tmp_path_factory)
    capsys.readouterr()
    to = ("--to", str(tmp_path / "mine.csv")) if command == "collect" else ()
    option = said(capsys, command, NAME, *SETTINGS, *to, "--store", str(store))
    assert said(capsys, command, NAME, f"store={store}", *SETTINGS, *to) == option
    assert "8 success" in option[1]


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


def test_a_dry_run_says_what_would_be_trained_and_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("subprocess.Popen", None)
    status, out, err = said(
        capsys, "study", NAME, *SETTINGS, "lora.ratio=16", "--dry-run", "--store", str(tmp_path / "s")
    )
    lines = out.splitlines()
    assert (status, err, lines[0]) == (0, "", f"study {NAME}")
    assert len([line for line in lines if "  missing  " in line]) == 4 and "4 runs: 4 missing" in lines
    assert lines[-1].startswith(
        "second stage: 2 runs on fresh seeds, 2 for the best of each of 1 arm (lora.ratio); but"
    )
    assert not (tmp_path / "s").exists()
    status, _, err = said(capsys, "study", "new", "mine", "--dry-run")
    assert status == 2 and err.startswith("error: --dry-run: ") and not (places.HERE / "sweeps" / "mine.yaml").exists()


QUESTIONS = """
from loralab.studies.questions import Claim, Question
from loralab.studies.stats import Interval


def questions(frame):
    claim = Claim("a loss", Interval(float(frame["validation/loss"].min()), 0.1, 9.0, 4, 0.5))
    return [Question("is it small?", "in no paper", "nats", [claim])]
"""


@pytest.fixture
def judged(root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store of a finished study whose analysis asks a question; its training process is left out."""
    store = tmp_path_factory.mktemp("judged")
    shutil.copytree(first_stage(tmp_path_factory), store, dirs_exist_ok=True)
    sweep = root / "sweeps" / f"{NAME}.yaml"
    text = sweep.read_text().replace("      cost:", "      margin: 0.1 nats\n      cost:")
    sweep.write_text(re.sub(r"    confirm:\n(?:      .*\n)+", "", text))
    (root / "analysis" / f"{NAME}.py").write_text(DRAW + QUESTIONS)
    monkeypatch.setattr("loralab.cli.studies.exit_status", lambda _: 0)
    return store


def test_a_study_with_settings_of_its_own_is_judged_by_its_own_results(
    judged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = said(capsys, "study", NAME, *SETTINGS, "--store", str(judged))
    assert (status, err) == (0, "") and out.splitlines()[-2] == f"{NAME}: is it small?"
    assert "a loss: " in out.splitlines()[-1]


def test_what_settings_leave_unanswered_is_a_line_and_no_failure(
    root: Path, judged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "analysis" / f"{NAME}.py").write_text(DRAW + "def questions(frame):\n    return frame['lora.alpha']\n")
    status, out, err = said(capsys, "study", NAME, *SETTINGS, "--store", str(judged))
    assert (status, err) == (0, "")
    assert out.splitlines()[-1].startswith("no verdicts with these settings: KeyError: 'lora.alpha' (analysis/")
