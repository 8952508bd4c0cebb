"""What a model gives is in its record; for an older run it is found in the data, or in the head's shapes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from loralab.errors import UserError
from loralab.runs.load import load_run
from loralab.runs.outputs import Outputs, of_run
from loralab.runs.plan import plan, replan
from loralab.runs.run import run
from loralab.store.record import Record
from loralab.store.run_directory import RunDirectory
from tests.small_runs import config

LABELS = ("dull", "fine", "odd")


def data(directory: Path, *, labels: tuple[str, ...] = LABELS, rows: int = 60) -> Path:
    file = directory / "mine.csv"
    file.write_text("text,kind\n" + "".join(f"film {i} of mine,{labels[i % len(labels)]}\n" for i in range(rows)))
    return file


def trained(directory: Path, *overrides: str, labels: tuple[str, ...] = LABELS) -> RunDirectory:
    asked = config(
        directory / "store", "task=local", f"task.files.train={data(directory, labels=labels)}", "task.text=[text]",
        "task.label=kind", "task.train_rows=null", "task.eval_rows=null", "train.steps=2", *overrides,
    )  # fmt: skip
    run(asked)
    return plan(asked).directory


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run of three classes whose data is gone; not to be changed."""
    directory = tmp_path_factory.mktemp("classifier")
    found = trained(directory)
    (directory / "mine.csv").unlink()
    return found


def found(of: RunDirectory, *, older: bool = False) -> Outputs:
    record: Any = of.finished()
    if older:
        del record["outputs"], record["backbone"]
    folder = of.path / ("model" if of.model.is_dir() else "adapter")
    return of_run(replan(of, record), record, folder)


def test_the_record_names_the_classes_and_the_backbone(classifier: RunDirectory) -> None:
    record = classifier.finished()
    assert record is not None
    assert record["outputs"] == {"kind": "classification", "labels": list(LABELS)}
    assert record["backbone"] == {"origin": "random", "family": "bert", "width": 64}
    assert found(classifier) == Outputs("classification", LABELS)
    assert load_run(classifier.path)[0].config.id2label == dict(enumerate(LABELS))


def test_an_older_run_has_the_names_of_its_data_while_that_is_the_same(tmp_path: Path) -> None:
    of = trained(tmp_path)
    assert found(of, older=True) == Outputs("classification", LABELS)
    with (tmp_path / "mine.csv").open("a") as stream:
        stream.write("one more,new\n")
    assert found(of, older=True) == Outputs("classification", ("LABEL_0", "LABEL_1", "LABEL_2"))


@pytest.mark.parametrize(
    "method", ["lora", *(pytest.param(name, marks=pytest.mark.slow) for name in ("head", "full", "houlsby", "prompt"))]
)
def test_without_names_the_head_tells_the_number_of_classes(method: str, tmp_path: Path) -> None:
    of = trained(tmp_path, f"method={method}", *(["optim.lr=1e-3"] if method == "full" else []))
    (tmp_path / "mine.csv").unlink()
    assert found(of, older=True) == Outputs("classification", ("LABEL_0", "LABEL_1", "LABEL_2"))


@pytest.mark.slow
def test_a_number_has_no_classes(tmp_path: Path) -> None:
    of = trained(tmp_path, labels=("0.5", "1.5", "2.5"))
    assert found(of) == Outputs("regression", None)
    (tmp_path / "mine.csv").unlink()
    assert found(of, older=True) == Outputs("regression", None)


def test_an_adapter_without_a_head_is_one_line(classifier: RunDirectory, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(classifier.adapter, folder)
    described = json.loads((folder / "adapter_config.json").read_text())
    record: Any = classifier.finished()
    planned = replan(classifier, record)
    older: Record = {key: value for key, value in record.items() if key != "outputs"}  # type: ignore[assignment]
    (folder / "adapter_config.json").write_text(json.dumps(described | {"modules_to_save": []}))
    with pytest.raises(UserError, match=r"holds no head, whose rows would tell the number of classes$"):
        of_run(planned, older, folder)
    (folder / "adapter_model.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="the number of the head's outputs cannot be read there"):
        of_run(planned, older, folder)
