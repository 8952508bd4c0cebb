"""The example of docs/own_data.md works as it is written, at a small size."""

import csv
import re
from pathlib import Path

import pandas as pd
import pytest

from loralab.cli.main import main
from loralab.config.compose import CONF
from loralab.runs.run import run
from tests.small_runs import config
from tests.test_docs import commands

PAGE = (CONF.parent / "docs" / "own_data.md").read_text(encoding="utf-8")
EXAMPLE = PAGE.split("### An example: 17 classes, some rare")[1].split("\n## ")[0]
SMALL = ("task.train_rows=64", "task.eval_rows=64", "train.epochs=null")


def test_from_a_file_of_17_classes_to_predictions_and_a_confusion_matrix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORALAB_STORE", "outputs")
    code = re.search(r"```python\n(.*?)```", EXAMPLE, re.DOTALL)
    assert code is not None
    exec(code[1], {})
    (training,) = commands(EXAMPLE, "python train.py")
    run(config(Path("outputs"), *training, *SMALL))
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
