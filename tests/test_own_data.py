"""The example of docs/own_data.md works as it is written, at a small size; own data go through studies and reports."""

import csv
import random
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from loralab.cli.main import main
from loralab.config.compose import CONF
from loralab.runs.run import run
from loralab.sweeps.study import open_study
from tests.small_runs import SMALL, config
from tests.small_studies import train
from tests.test_docs import commands

PAGE = (CONF.parent / "docs" / "own_data.md").read_text(encoding="utf-8")
EXAMPLE = PAGE.split("### An example: 17 classes, some rare")[1].split("\n## ")[0]
FEW = ("task.train_rows=64", "task.eval_rows=64", "train.epochs=null")


def test_from_a_file_of_17_classes_to_predictions_and_a_confusion_matrix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORALAB_STORE", "outputs")
    code = re.search(r"```python\n(.*?)```", EXAMPLE, re.DOTALL)
    assert code is not None
    exec(code[1], {})
    (training,) = commands(EXAMPLE, "python train.py")
    run(config(Path("outputs"), *training, *FEW))
    asked = list(commands(EXAMPLE, "loralab"))
    assert [words[0] for words in asked] == ["evaluate", "predict"]
    for words in asked:
        assert main([word.replace("minilm", "tiny") for word in words]) == 0
    out, _ = capsys.readouterr()
    with Path("questions.csv").open(newline="") as file:
        names = sorted({row["type"] for row in csv.DictReader(file)})
    matrix = out.split("confusion matrix: ")[1].splitlines()[2:19]
    assert len(names) == 17 and [line.split()[1] for line in matrix] == names
    found = pd.read_csv("predicted.csv")
    assert len(found) == 200 and set(found["prediction"]) <= set(names)
    assert list(found) == ["id", "text", "prediction", "probability", *(f"p({name})" for name in names)]
    shown = EXAMPLE.split("```text\n")[1]
    assert [line.split()[0] for line in shown.splitlines()[6:23]] == names, "the page's own output"


def reviews(folder: Path, label: Callable[[float], str]) -> Path:
    """A file of 180 short reviews, each as good as its words are."""
    draw = random.Random(0)
    rows: list[tuple[str, str]] = []
    for _ in range(180):
        share = draw.random()
        words = ["great" if draw.random() < share else "awful" for _ in range(5)]
        rows.append((f"review {len(rows)} {' '.join(words)}", label(share)))
    with (folder / "reviews.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("review", "verdict"), *rows])
    return folder / "reviews.csv"


def grade(share: float) -> str:
    return f"{1 + 4 * share:.2f}"


def mood(share: float) -> str:
    return "good" if share > 0.6 else "bad" if share < 0.4 else "mixed"


@pytest.mark.slow
@pytest.mark.parametrize(("study", "label"), [("first", grade), ("first", mood), ("ratio", mood)])
def test_own_data_goes_through_a_study_its_report_and_what_is_done_with_a_run(
    study: str, label: Callable[[float], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORALAB_STORE", "outputs")
    data = (
        "task=local",
        f"task.files.train={reviews(tmp_path, label).name}",
        "task.text=[review]",
        "task.label=verdict",
    )
    settings = (*data, *(each for each in SMALL if each[:5] != "task." and "steps" not in each), "smoke=true")
    with open_study(study, settings, store=Path("outputs")) as opened:
        train(opened)
        names = list(dict.fromkeys(cell.run for cell in opened.cells()))
    for command in ("collect", "figure", "report"):
        assert main([command, study, *settings, *(["--to", "page.html"] if command == "report" else [])]) == 0
    (caption,) = Path("outputs", "figures").glob(f"{study}-*.txt")
    page = re.sub(r"<[^>]+>", " ", Path("page.html").read_text(encoding="utf-8"))
    assert "reviews" in page and "nan" not in re.sub(r"<style.*?</style>", "", page, flags=re.DOTALL)
    capsys.readouterr()

    assert main(["evaluate", names[0]]) == 0
    measured = capsys.readouterr().out
    assert main(["predict", names[0], "reviews.csv", "--text", "review", "--to", "predicted.csv"]) == 0
    assert main(["curves", *names[:2], "--to", "curves.png"]) == 0
    told = measured + capsys.readouterr().out + caption.read_text(encoding="utf-8")
    found = pd.read_csv("predicted.csv")
    if label is mood:
        assert "accuracy" in told and set(found["prediction"]) <= {"good", "mixed", "bad"}
    else:
        assert "pearson" in told and "accuracy" not in told + page
        assert found["prediction"].dtype == float and "probability" not in found
