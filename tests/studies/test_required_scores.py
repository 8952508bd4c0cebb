"""A task without the scores that a figure needs is refused before any training, in one line."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from loralab.cli.main import main
from loralab.errors import UserError
from loralab.studies.required_scores import refuse_other_tasks, refuse_without_scores
from loralab.studies.study_module import module_of
from loralab.sweeps.study import open_study

SMALL = ["smoke=true", "seed=0"]


@pytest.fixture
def scores(tmp_path: Path) -> list[str]:
    """Overrides for a regression on the user's own file."""
    path = tmp_path / "scores.csv"
    path.write_text("said,score\n" + "".join(f"cup {i},{i / 7 + 0.01:.2f}\n" for i in range(140)))
    return [*SMALL, "task=local", f"task.files.train={path}", "task.text=[said]", "task.label=score"]


def test_regression_data_is_refused_by_a_study_of_accuracy_before_it_trains(
    scores: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: Any, **__: Any) -> None:
        raise AssertionError("it trains")

    monkeypatch.setattr(subprocess, "run", run)
    assert main(["study", "ratio", *scores, "--store", str(tmp_path / "store")]) == 2
    assert capsys.readouterr().err == (
        "error: task.name: the figure of study ratio needs accuracy, and task=local (regression) is scored by pearson, "
        "spearman, mse; choose a study of losses, such as first, or draw these scores in a copy of analysis/ratio.py\n"
    )


def test_a_study_of_losses_takes_it(scores: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_study("first", scores, store=tmp_path) as study:
        refuse_other_tasks(study, module_of(study), scores)
    called: list[list[str]] = []

    def train(command: list[str]) -> int:
        called.append(command)
        return 3

    monkeypatch.setattr("loralab.cli.studies.exit_status", train)
    assert main(["study", "first", *scores, "--store", str(tmp_path)]) == 3 and len(called) == 1


def test_other_classes_have_the_scores(scores: list[str], tmp_path: Path) -> None:
    kinds = [*scores, "task.kind=classification", "task=trec", "task.train_rows=64"]
    for given in (kinds[:-2], [*SMALL, *kinds[-2:]], [*SMALL, "optim.lr=0.1"]):
        with open_study("ratio", given, store=tmp_path) as study:
            refuse_other_tasks(study, module_of(study), given)


def test_runs_without_the_scores_are_told_by_name(tmp_path: Path) -> None:
    with open_study("ratio", SMALL, store=tmp_path) as study:
        module = module_of(study)
        assert module.scores == ("validation/loss", "validation/accuracy", "test/loss", "test/accuracy", "train/loss")
        refuse_without_scores(study, module, module.scores)
        refuse_without_scores(study, module, ["run", "best/step"])  # nothing was trained, which is another line
        found = ["validation/pearson", "validation/loss", "test/loss", "train/loss"]
        with pytest.raises(UserError) as raised:
            refuse_without_scores(study, module, found)
    assert str(raised.value) == (
        "analysis/ratio.py needs validation/accuracy, test/accuracy, and the runs have validation/pearson, "
        "validation/loss, test/loss: their task has other metrics"
    )
