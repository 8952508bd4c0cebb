"""Operations on all studies: a study that fails is named, and the others are processed."""

from pathlib import Path

import pandas as pd
import pytest

from loralab.errors import UserError
from loralab.studies import committed, results
from loralab.studies.report import report
from tests.cli.test_main import said
from tests.small_studies import FIRST, NAME, TEXT, checkout

ANALYSIS = """
from loralab.studies.questions import Claim, Question
from loralab.studies.stats import Interval
def draw(frame):
    import matplotlib.pyplot as plt
    return plt.subplots()[0]
def questions(frame):
    return [Question("is it up?", "LoRA+, Fig 7", "x", [Claim("up", Interval(2.0, 1.9, 2.1, 5, 1e-9))])]
"""
BROKEN = {  # study -> its analysis, and the line that is printed for it
    "cannot_be_read": ("def draw(frame:\n", "analysis/cannot_be_read.py, line 1: '(' was never closed"),
    "draws_nothing": (
        "def draw(frame):\n    return frame['x']\ndef questions(frame):\n    return 1 / 0\n",
        "KeyError: 'x' (analysis/draws_nothing.py, line 2)",
    ),
    "has_no_analysis": (None, "study 'has_no_analysis' has no analysis/has_no_analysis.py"),
}
PAGE = "<!-- claims: two_stages -->\n<!-- end -->\n"


def with_margin(margin: str) -> str:
    return TEXT.replace("    study:\n", f"    study:\n      margin: {margin}\n", 1)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one study that works and three that do not; the results of all exist and are complete."""
    found = checkout(tmp_path / "checkout", monkeypatch)
    (found / "analysis").mkdir()
    (found / "docs").mkdir()
    (found / "docs" / "findings.md").write_text(PAGE)
    rows = [("grid", *row) for row in FIRST]
    rows += [("confirm", seed, ratio, rate) for seed in (100, 101) for ratio, rate in ((1, 0.001), (16, 0.0005))]
    frame = pd.DataFrame(rows, columns=["stage", "seed", "lora.ratio", "optim.lr"])
    frame = frame.assign(status="success", hash=[f"{at:010x}" for at in range(len(rows))], commit="c" * 40)
    frame["validation/loss"] = frame["optim.lr"] + 0.5
    for name, text in {NAME: ANALYSIS, **{name: text for name, (text, _) in BROKEN.items()}}.items():
        (found / "sweeps" / f"{name}.yaml").write_text(with_margin("1.1x"))
        results.save(frame, found / "analysis" / "results" / f"{name}.csv")
        if text is not None:
            (found / "analysis" / f"{name}.py").write_text(text)
    return found


def test_all_figures_are_drawn_but_those_of_broken_studies(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert committed.names() == sorted([NAME, *BROKEN])
    status, out, err = said(capsys, "figure", "all")
    drawn = [root / "analysis" / "figures" / f"{NAME}.{kind}" for kind in ("png", "pdf")]
    assert status == 1 and out.splitlines() == list(map(str, drawn)) and all(path.is_file() for path in drawn)
    lines = err.splitlines()
    assert len(lines) == len(BROKEN)
    for line, (name, (_, wrong)) in zip(lines, sorted(BROKEN.items()), strict=True):
        assert line.startswith(f"error: {name}: {wrong}")
    assert said(capsys, "figure", NAME)[0] == 0 and said(capsys, "figure", "cannot_be_read")[0] == 2


def test_the_questions_of_the_others_are_answered(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = said(capsys, "claims")
    assert status == 1 and out.splitlines() == [f"{NAME}: is it up?", f"  {'held':20}  up: 2.00x [1.90, 2.10], n = 5"]
    assert [line.split(":")[1].strip() for line in err.splitlines()] == sorted(BROKEN)
    assert "ZeroDivisionError: division by zero (analysis/draws_nothing.py, line 4)" in err
    for page in ("analysis/claims.md", "docs/findings.md"):
        assert "| held |" in (root / page).read_text(), page


@pytest.mark.parametrize(("margin", "got"), [("0.5 points", "got 0.5 points;"), ("''", "got ;")])
def test_a_study_that_asks_names_a_margin_in_the_unit_of_its_claims(root: Path, margin: str, got: str) -> None:
    (root / "sweeps" / f"{NAME}.yaml").write_text(with_margin(margin))
    failures = committed.ask_committed()[1]
    assert failures[NAME] == (
        f"sweeps/{NAME}.yaml: hydra.sweeper.study.margin: {got} claims of unit x need the difference that counts as "
        "none, as 1.5x"
    )


def test_a_study_has_a_margin_for_each_unit(root: Path) -> None:
    (root / "sweeps" / f"{NAME}.yaml").write_text(with_margin("0.5 points, 1.2x, .25"))
    (question,) = committed.questions(NAME)
    assert (question.study, question.margin) == (NAME, 1.2)


def test_a_report_of_all_has_the_others(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = tmp_path / "report.html"
    status, out, err = said(capsys, "report", "all", "--to", str(to))
    assert (status, out) == (1, f"{to}\n") and len(err.splitlines()) == len(BROKEN)
    assert to.read_text(encoding="utf-8").count("<section ") == 1
    assert said(capsys, "report", NAME, "--to", str(to))[0] == 0, "it is judged by itself"
    with pytest.raises(UserError, match=r"analysis/cannot_be_read\.py, line 1"):
        report(["cannot_be_read"], to)
