"""A run's predictions of new texts are those that it made in training, in any order and company."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from loralab.errors import UserError
from loralab.runs.load import restore
from loralab.runs.predict import TextPredictor, probabilities
from loralab.store.run_directory import RunDirectory
from loralab.tasks import TaskSettings, packaged
from loralab.tasks.splits import subset
from tests.runs.test_export import stored
from tests.small_runs import SMALL_ROWS, trained_on


def test_a_class_comes_with_its_probability_and_every_other_classs(finished: RunDirectory) -> None:
    splits = subset(packaged.read(TaskSettings("rotten_tomatoes")), SMALL_ROWS, SMALL_ROWS).splits
    texts = [text for (text,) in splits["test"].texts[:8]]
    predictor = TextPredictor(restore(finished))
    found = predictor([None, *reversed(texts), None])
    p = probabilities(stored(finished))[::-1]
    assert list(found) == list(predictor.columns) == ["prediction", "probability", "p(negative)", "p(positive)"]
    assert all(column[0] is None and column[-1] is None for column in found.values())
    own = np.array([found["p(negative)"][1:-1], found["p(positive)"][1:-1]], dtype=np.float64).T
    np.testing.assert_allclose(own, p, atol=1e-5)
    names = np.array(["negative", "positive"])[p.argmax(axis=1)]
    assert found["prediction"][1:-1] == names.tolist()
    assert found["probability"][1:-1] == own.max(axis=1).tolist()


def test_a_number_is_the_models_output(tmp_path: Path) -> None:
    of = trained_on(tmp_path, [{"text": f"w{i} is {i % 9}", "label": i / 7} for i in range(60)], "task.text=[text]")
    table = pd.read_parquet(of.predictions).query("at == 'last' and split == 'test'")
    predictor = TextPredictor(restore(of))
    found = predictor([f"w{row} is {row % 9}" for row in table["row"]])
    assert predictor.columns == {"prediction": float} and list(found) == ["prediction"]
    np.testing.assert_allclose(found["prediction"], np.stack(table["logits"].to_list())[:, 0], atol=1e-5)


def test_a_pair_of_texts_is_two_texts(tmp_path: Path) -> None:
    rows = [{"first": f"w{i}", "second": f"is {i % 2}", "label": ["no", "yes"][i % 2]} for i in range(60)]
    of = trained_on(tmp_path, rows, "task.text=[first,second]")
    predictor = TextPredictor(restore(of))
    table = pd.read_parquet(of.predictions).query("at == 'last' and split == 'test'")
    found = predictor([(rows[row]["first"], rows[row]["second"]) for row in table["row"]])
    assert predictor.texts == ("first", "second") and found["prediction"] == table["predicted"].tolist()
    with pytest.raises(UserError, match=r"^texts: the run reads 2 a row \(first, second\); give as many$"):
        predictor(["one text"])


def test_an_answer_is_the_runs_own(tmp_path: Path) -> None:
    rows = [{"said": f"say ok {i}", "label": "ok"} for i in range(60)]
    of = trained_on(
        tmp_path, rows, "task.text=[said]", "model=tiny_decoder", "method=lora", "lora.targets=[all]", "optim.lr=1e-2",
        "train.precision=fp32", "generate.max_new_tokens=6", "train.steps=12", kind="pairs",
    )  # fmt: skip
    predictor = TextPredictor(restore(of))
    table = pd.read_parquet(of.predictions).query("at == 'last' and split == 'test'")
    found = predictor([None, *(f" say ok {row} " for row in table["row"])])
    assert predictor.columns == {"prediction": str} and found == {"prediction": [None, *table["text"]]}


def test_the_check_between_batches_may_stop_it(finished: RunDirectory) -> None:
    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        TextPredictor(restore(finished), stop)(["a text"])


def test_a_run_without_trained_weights_and_a_device_that_is_not_there_are_one_line(
    finished: RunDirectory, tmp_path: Path
) -> None:
    cut_off = RunDirectory(tmp_path / "store" / "runs" / "tiny-x-0123456789")
    cut_off.begin("seed: 0\n")
    for of, device, line in (
        (cut_off, "cpu", r"no finished run to load \(cut off at step 0\)"),
        (finished, "gpu", r"^--device: got 'gpu'; allowed: auto, cpu, cuda, cuda:N, mps"),
    ):
        with pytest.raises(UserError, match=line):
            restore(of, device)
