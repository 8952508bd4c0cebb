"""`loralab evaluate`: the report, its JSON and its figure; a mistake is one line."""

import json
from pathlib import Path

import pandas as pd
import pytest

from loralab.store.run_directory import RunDirectory
from tests.cli.test_main import said


def test_the_test_split_is_reported_and_drawn_into_the_store(
    finished: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = said(capsys, "evaluate", str(finished.path), "--store", str(tmp_path))
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"{finished.path.name} at step 12, test: 64 rows"
    assert "positive class: positive (f1, precision, recall and auroc are its)" in lines
    assert lines[-2:] == [
        str(tmp_path / "figures" / f"evaluate-{finished.path.name}-test{end}") for end in (".png", ".pdf")
    ]
    assert all(Path(line).stat().st_size for line in lines[-2:])


def test_json_has_the_numbers_and_draws_only_where_it_is_told_to(
    finished: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = pd.DataFrame({"text": ["a fine film", "dull", "thin"], "label": ["positive", "negative", "positive"]})
    rows.to_csv(tmp_path / "mine.csv", index=False)
    given = ("evaluate", str(finished.path), str(tmp_path / "mine.csv"), "--json", "--store", str(tmp_path))
    status, out, err = said(capsys, *given)
    found = json.loads(out)
    assert (status, err) == (0, "") and not (tmp_path / "figures").exists()
    assert (found["rows"], found["positive"], found["worst"][0]["row"][:5]) == (3, "positive", "line ")
    status, again, err = said(capsys, *given, "--to", str(tmp_path / "mine.png"))
    assert status == 0 and again == out and str(tmp_path / "mine.png") in err and (tmp_path / "mine.pdf").is_file()


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--split", "tset"], "--split: got 'tset'; allowed: train, validation, test; did you mean 'test'?"),
        (["mine.csv", "--split", "test"], "--split: got test beside mine.csv; name a split or a file"),
        (["--label", "class"], "--text, --label: these name columns of a FILE, and none is given"),
        (["nothing.csv"], "FILE: 'nothing.csv' does not exist"),
        (["--worst", "-1"], "--worst: got -1; it must be 0 or more"),
        (["--split", "train", "--device", "gpu"], "--device: got 'gpu'; allowed: auto, cpu"),
    ],
)
def test_a_mistake_is_one_line(
    more: list[str], line: str, finished: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = said(capsys, "evaluate", str(finished.path), *more, "--store", str(tmp_path))
    assert (status, out) == (2, "") and err.startswith(f"error: {line}") and err.count("\n") == 1, err
