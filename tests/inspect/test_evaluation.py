"""What is evaluated: a stored split's predictions, the model's own of another, and those of a file of labelled rows."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from loralab.errors import UserError
from loralab.files import write_json
from loralab.inspect.evaluation import of_file, of_split
from loralab.store.run_directory import RunDirectory
from tests.small_runs import SMALL_ROWS, trained_on

ROWS = [{"text": f"w{i} is {i % 3}", "label": ["ant", "bee", "cat"][i % 3]} for i in range(60)]


@pytest.fixture(scope="module")
def animals(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A small run on three classes of the user's own; not to be changed."""
    return trained_on(tmp_path_factory.mktemp("animals"), ROWS, "task.text=[text]", "method=full", "optim.lr=1e-2")


def file(path: Path, rows: list[dict[str, Any]]) -> str:
    pd.DataFrame(rows).to_csv(path, index=False)
    return str(path)


@pytest.mark.parametrize("split", ["test", "validation", "train"])
def test_a_splits_scores_are_the_records_and_its_texts_those_of_its_rows(animals: RunDirectory, split: str) -> None:
    found = of_split(animals, split, device="cpu")
    record = animals.finished()
    assert record is not None and len(found) == record["rows"][split] and found.outputs.labels == ("ant", "bee", "cat")
    if split != "train":
        last = record["metrics"][split]["last"]
        assert {"step": found.step, **found.scores} == pytest.approx(last, abs=1e-5)
    assert found.texts is not None
    for where, text, label in zip(found.where, found.texts, found.truth, strict=True):
        row = ROWS[int(where.removeprefix("row "))]
        assert text == row["text"] and found.outputs.labels[label] == row["label"]


def test_a_files_rows_are_judged_as_those_of_a_split_whatever_its_columns_names(
    animals: RunDirectory, tmp_path: Path
) -> None:
    own = of_split(animals, "test", device="cpu")
    rows = [ROWS[int(where.removeprefix("row "))] for where in own.where]
    renamed = [{"id": i, "body": row["text"], "kind": row["label"]} for i, row in enumerate(rows)]
    found = of_file(animals, file(tmp_path / "same.csv", renamed), text=["body"], label="kind", device="cpu")
    np.testing.assert_allclose(found.guesses, own.guesses, atol=1e-5)
    assert found.truth.tolist() == own.truth.tolist() and found.scores == pytest.approx(own.scores, abs=1e-5)
    assert list(found.where) == [f"line {at}" for at in range(2, 2 + len(rows))] and not found.left_out
    again = of_file(animals, file(tmp_path / "same.csv", renamed[::-1]), text=["body"], label="kind", device="cpu")
    np.testing.assert_allclose(again.guesses[::-1], own.guesses, atol=1e-5)


def test_labels_that_training_never_saw_are_left_out_and_counted(animals: RunDirectory, tmp_path: Path) -> None:
    rows = [*ROWS[:3], {"text": "w1", "label": "emu"}, ROWS[3], {"text": "w2", "label": "Ant"}]
    found = of_file(animals, file(tmp_path / "more.csv", rows), text=None, label=None, device="cpu")
    assert found.left_out == {"emu": 1, "Ant": 1} and list(found.where) == ["line 2", "line 3", "line 4", "line 6"]
    with pytest.raises(UserError, match=r"^--label: no label .* is one of the run's; got emu; allowed: ant, bee, cat$"):
        of_file(animals, file(tmp_path / "all.csv", rows[3:4]), text=None, label=None, device="cpu")
    with pytest.raises(UserError, match=r"^--label: \S+ has no column 'label'; its columns: text$"):
        of_file(animals, file(tmp_path / "none.csv", [{"text": "a"}]), text=None, label=None, device="cpu")


def test_the_worst_rows_have_the_largest_losses(animals: RunDirectory) -> None:
    found = of_split(animals, "test", device="cpu")
    worst = found.worst(4)
    assert found.losses[worst].tolist() == sorted(found.losses, reverse=True)[:4] and found.worst(0) == []
    p = found.guesses[np.arange(len(found)), found.truth]
    np.testing.assert_allclose(found.losses, -np.log(p))


def test_where_the_data_is_gone_a_stored_split_has_no_texts_and_another_is_one_line(tmp_path: Path) -> None:
    of = trained_on(tmp_path, ROWS, "task.text=[text]", "train.steps=1")
    before = of_split(of, "test", device="cpu")
    (tmp_path / "mine.jsonl").unlink()
    found = of_split(of, "test", device="cpu")
    assert found.texts is None and found.gone is not None and "mine.jsonl' does not exist" in found.gone
    assert found.truth.tolist() == before.truth.tolist()
    with pytest.raises(UserError, match="does not exist"):
        of_split(of, "validation", device="cpu")
    (tmp_path / "mine.jsonl").write_text('{"text": "a", "label": "b"}\n')
    with pytest.raises(UserError, match=r"the data of task=local has changed since the run was trained"):
        of_split(of, "validation", device="cpu")


def test_a_run_of_an_older_version_whose_record_and_predictions_lack_the_names_is_judged_alike(
    animals: RunDirectory, tmp_path: Path
) -> None:
    older = RunDirectory(tmp_path / "store" / "runs" / animals.path.name)
    shutil.copytree(animals.path, older.path)
    record = json.loads((older.path / "record.json").read_text())
    del record["outputs"]
    write_json(older.path / "record.json", record)
    pd.read_parquet(older.predictions).drop(columns=["label_name", "predicted"]).to_parquet(older.predictions)
    for split in ("test", "validation"):
        found, new = of_split(older, split, device="cpu"), of_split(animals, split, device="cpu")
        assert found.outputs == new.outputs and found.scores == new.scores
        np.testing.assert_array_equal(found.guesses, new.guesses)


def test_numbers_and_answers_of_a_file_are_judged_by_the_runs_metrics(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("numbers", "answers")]
    for folder in folders:
        folder.mkdir()
    numbers = [{"text": f"w{i}", "label": i / 7} for i in range(60)]
    of = trained_on(folders[0], numbers, "task.text=[text]", "train.steps=1")
    found = of_file(of, file(tmp_path / "numbers.csv", numbers[:9]), text=None, label=None, device="cpu")
    assert list(found.scores) == ["pearson", "spearman", "mse", "loss"]
    assert found.scores["mse"] == pytest.approx(found.losses.mean(), rel=1e-4)
    answers = [{"text": f"say ok {i}", "label": "ok"} for i in range(60)]
    of = trained_on(
        folders[1], answers, "task.text=[text]", "model=tiny_decoder", "method=lora", "lora.targets=[all]",
        "generate.max_new_tokens=4", "train.steps=1", "train.precision=fp32", kind="pairs",
    )  # fmt: skip
    stored = of_split(of, "test", device="cpu")
    rows = [answers[int(where.removeprefix("row "))] for where in stored.where]
    found = of_file(of, file(tmp_path / "answers.csv", rows), text=None, label=None, device="cpu")
    assert found.guesses.tolist() == stored.guesses.tolist() and found.texts == [row["text"] for row in rows]
    np.testing.assert_allclose(found.losses, stored.losses, rtol=1e-4)
    assert found.wrong is not None and set(found.worst(99)) == set(np.flatnonzero(found.wrong))


def test_a_split_that_is_not_there_and_a_run_that_has_not_ended_are_one_line(
    finished: RunDirectory, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"^--split: got 'tets'; allowed: train, validation, test; did you mean 'test'"):
        of_split(finished, "tets", device="cpu")
    (tmp_path / "runs" / "tiny-x-0123456789").mkdir(parents=True)
    with pytest.raises(UserError, match="no finished run to evaluate"):
        of_split(RunDirectory(tmp_path / "runs" / "tiny-x-0123456789"), "test", device="cpu")
    assert len(of_split(finished, "test", device="cpu")) == SMALL_ROWS
