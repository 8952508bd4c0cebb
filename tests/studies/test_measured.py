"""Studies that are measured, not trained: the same files and commands, no missing rows in a CSV, and no run."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from loralab.cli.main import main
from loralab.errors import UserError
from loralab.studies import committed, figures, results
from loralab.studies.claims import lines
from loralab.studies.committed import ask_committed
from loralab.studies.report import report
from loralab.studies.tables import load_study
from loralab.sweeps.study import open_study
from tests.analysis.frames import module
from tests.cli.test_main import said
from tests.small_runs import CONF
from tests.small_studies import checkout

NAME = "squares"
SWEEP = f"""\
# @package _global_
# How the square of n grows with n.
hydra:
  mode: MULTIRUN
  sweeper:
    study:
      claim: The square grows.
      metric: square
      margin: 1.1x
      command: loralab study {NAME}
      cost: an instant
      program: analysis/{NAME}.py
"""
PROGRAM = """
import numpy as np
import pandas as pd
from loralab.studies import captions

KEYS = ["part", "n"]
KEPT = [*KEYS, "square", "commit", "diff"]


def wanted(smoke):
    numbers = (1, 0.1) if smoke else (1, 2, 0.1)
    return pd.DataFrame([{"part": part, "n": n} for part in ("whole", None) for n in numbers])


def measure(smoke):
    frame = wanted(smoke)
    return frame.assign(square=np.where(frame["n"] > 1, np.nan, frame["n"] ** 2))


def draw(frame):
    import matplotlib.pyplot as plt
    figure, ax = plt.subplots()
    ax.plot(frame["n"], frame["square"])
    ax.set(xlabel="n", ylabel="square")
    return figure


def caption(frame):
    return f"Squares of {len(frame)} numbers, {captions.code(frame)}."


def summary(frame):
    return frame[["n", "square"]]


def questions(frame):
    from loralab.studies.questions import Claim, Question
    from loralab.studies.stats import Interval
    return [Question("is it one?", "in no paper", "x", [Claim("n = 1", Interval(1.0, 1.0, 1.0, 2, 1.0), exact=True)])]
"""
TOLD = [f"{NAME}: is it one?", f"  {'held':20}  n = 1: 1.00x [1.00, 1.00], n = 2"]


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with only this study."""
    folder = checkout(tmp_path / "checkout", monkeypatch)
    for file in (folder / "sweeps").iterdir():
        file.unlink()
    (folder / "sweeps" / f"{NAME}.yaml").write_text(SWEEP)
    (folder / "analysis").mkdir()
    (folder / "analysis" / f"{NAME}.py").write_text(PROGRAM)
    return folder


@pytest.fixture
def csv(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["collect", NAME, "--store", str(tmp_path / "store")]) == 0
    path = root / "analysis" / "results" / f"{NAME}.csv"
    assert capsys.readouterr().out == f"6 rows in {path}\n"
    return path


def test_one_command_measures_and_draws(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ("--store", str(tmp_path / "store"))
    status, out, err = said(capsys, "study", NAME, *store)
    stem = root / "analysis" / "figures" / NAME
    written = root / "analysis" / "results" / f"{NAME}.csv"
    files = [f"{stem}.{kind}" for kind in ("png", "pdf", "txt")]
    assert (status, err, out.splitlines()) == (0, "", [f"6 rows in {written}", *files, *TOLD])
    assert Path(f"{stem}.png").is_file() and committed.names() == [NAME]
    assert not (tmp_path / "store" / "runs").exists()

    small = tmp_path / "store" / "results" / "mine.csv"
    status, out, _ = said(capsys, "study", NAME, "smoke=true", "--name", "mine", *store)
    assert status == 0 and out.splitlines()[0] == f"4 rows in {small}" and TOLD[0] not in out
    assert len(results.load_results(NAME, "smoke=true", path=small)) == 4
    assert written.stat().st_mtime <= small.stat().st_mtime and len(results.load_results(NAME)) == 6


def test_the_rows_say_which_code_measured_them(csv: Path, tmp_path: Path) -> None:
    from loralab.store.provenance import code_version

    frame, version = results.load_results(NAME), code_version(tmp_path / "store")
    assert list(frame) == ["part", "n", "square", "commit", "diff"]
    assert set(frame["commit"].dropna()) == {version["commit"]} - {None}
    assert module(NAME).caption(frame).endswith(f", code {(version['commit'] or 'unknown')[:7]}.")
    assert frame["square"].isna().sum() == 2, "a number that is not there is no hole"


def test_the_claims_and_the_report_take_it_from_its_csv(csv: Path, tmp_path: Path) -> None:
    asked, failures = ask_committed()
    assert failures == {} and [line for question in asked for line in lines(question)] == TOLD
    report(["all"], tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Squares of 6 numbers" in html and f"loralab study {NAME}" in html and "python train.py" not in html


@pytest.mark.parametrize(("at", "cell"), [(0, "part=whole n=1"), (1, "part=whole n=2"), (5, "n=0.1")])
def test_a_row_that_is_not_there_is_named(at: int, cell: str, csv: Path, tmp_path: Path) -> None:
    results.save(results.load_results(NAME).drop(index=at), csv)
    line = rf"no row for {cell} \(1 of 6 .*`loralab study {NAME}` measures again"
    for ask in (lambda: results.load_results(NAME), lambda: figures.draw(NAME)):
        with pytest.raises(UserError, match=line):
            ask()
    asked, failures = ask_committed()
    assert asked == [] and list(failures) == [NAME] and re.search(line, failures[NAME])


def test_a_row_too_many_and_a_column_too_few_are_told(csv: Path) -> None:
    whole = results.load_results(NAME)
    for spoilt, line in (
        (pd.concat([whole, whole[:1]]), "more than one row for part=whole n=1"),
        (pd.concat([whole, whole[:1].assign(n=3)]), "1 unexpected rows, the first part=whole n=3"),
        (whole.drop(columns="square"), "has no column 'square'"),
    ):
        results.save(spoilt, csv)
        with pytest.raises(UserError, match=line):
            results.load_results(NAME)
    results.save(whole, csv)
    with pytest.raises(UserError, match=r"2 unexpected rows, .*; `loralab study squares smoke=true` measures"):
        results.load_results(NAME, "smoke=true", path=csv)


def test_status_says_whether_the_csv_is_there_and_whole(csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", NAME]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"study {NAME}" and "  claim: The square grows." in out
    assert out[-1] == f"6 rows in {csv}, none missing"
    results.save(results.load_results(NAME)[1:], csv)
    assert main(["status", NAME]) == 0 and "no row for part=whole n=1" in capsys.readouterr().out
    csv.unlink()
    assert main(["status", NAME]) == 0 and f"is not there; `loralab study {NAME}`" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["study", "collect", "status", "figure"])
def test_no_other_setting_is_taken(command: str, csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = said(capsys, command, NAME, "lora.rank=4", "--store", str(csv.parent))
    assert (status, out) == (2, "")
    assert err == f"error: lora.rank=4: {NAME} is measured, not trained, so it takes no setting but smoke=true\n"


def test_there_are_no_runs_of_it(csv: Path) -> None:
    with pytest.raises(UserError, match=rf"{NAME} is measured, not trained; `loralab study {NAME}` does it"):
        load_study(NAME)


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ("    params: {seed: [0, 1]}\n", r"hydra.sweeper.params: has no use beside hydra.sweeper.study.program"),
        ("    confirm: {by: [seed]}\n", r"hydra.sweeper.confirm: has no use beside"),
    ],
)
def test_a_study_is_measured_or_trained(lines: str, text: str, root: Path) -> None:
    (root / "sweeps" / f"{NAME}.yaml").write_text(SWEEP + lines)
    with pytest.raises(UserError, match=text), open_study(NAME):
        pass


def test_a_program_that_is_not_there_is_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "analysis" / f"{NAME}.py").unlink()
    status, _, err = said(capsys, "study", NAME)
    assert (status, err.count("\n")) == (2, 1) and f"program: analysis/{NAME}.py is not there" in err


@pytest.mark.parametrize("arguments", [(), ("--dry-run",), ("smoke=true",), ("-m", "seed=0,1")])
def test_the_trainer_says_what_measures_it(arguments: tuple[str, ...], tmp_path: Path) -> None:
    measured = "toy_linear"
    command = [sys.executable, str(CONF.parent / "train.py"), f"sweeps={measured}", *arguments, f"store={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    line = f"error: sweeps: {measured} is measured, not trained; `loralab study {measured}` does it\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
    assert [path.name for path in tmp_path.iterdir()] == ["checkout"], "nothing is written"
