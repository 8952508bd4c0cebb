"""The rows of a head that a checkpoint brings: sorted by the names of the classes, kept without names, else refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from loralab.backbones.label_order import row_order
from loralab.backbones.source import Source
from loralab.errors import UserError
from loralab.runs.run import run
from tests.backbones.checkpoints import find, take
from tests.families import ALL, FAMILIES, example_batch, save_checkpoint
from tests.small_runs import config

families = pytest.mark.parametrize("family", [*FAMILIES, "modernbert", "bloom"])


def named(family: str, directory: Path, *names: str) -> Source:
    """A saved classifier whose row i is the class `names[i]`."""
    model = ALL[family]()
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: i for i, name in enumerate(names)}
    return find(save_checkpoint(model, directory / family), directory)


@families
def test_a_class_keeps_its_logit_whatever_the_order_of_the_task(family: str, tmp_path: Path) -> None:
    source = named(family, tmp_path, "c", "a", "b")
    own = AutoModelForSequenceClassification.from_pretrained(source.directory, attn_implementation="eager").eval()
    ours = take(source, class_names=("a", "b", "c"))
    batch = example_batch(own)
    with torch.no_grad():
        wanted, found = own(**batch).logits, ours.model(**batch).logits
    torch.testing.assert_close(found, wanted[:, [1, 2, 0]], atol=1e-5, rtol=0)
    assert (ours.unfit, ours.notes) == (None, ())
    assert ours.model.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_the_same_order_changes_no_byte(tmp_path: Path) -> None:
    model = take(named("roberta", tmp_path, "a", "b", "c"), class_names=("a", "b", "c")).model
    for name, tensor in FAMILIES["roberta"]().named_parameters():
        assert torch.equal(model.get_parameter(name), tensor), name


def test_names_match_exactly_then_without_case() -> None:
    assert row_order(["NEGATIVE", "POSITIVE"], ["positive", "negative"]) == (1, 0)
    assert row_order(["a", "A"], ["A", "a"]) == (1, 0)
    assert row_order(["cafe\u0301", "b"], ["b", "caf\u00e9"]) == (1, 0)
    assert row_order(["a", "A"], ["a", "b"]) is None
    assert row_order(["a", "a"], ["a", "a"]) is None


def test_a_head_without_names_keeps_its_rows_and_says_so(checkpoint: Callable[..., Source]) -> None:
    backbone = take(checkpoint("bert", classifier=True), class_names=("x", "y", "z"))
    assert torch.equal(backbone.model.get_parameter("classifier.weight"), FAMILIES["bert"]().classifier.weight)
    (note,) = backbone.notes
    assert "does not name its classes" in note and "'x', 'y', 'z'" in note
    assert backbone.unfit is None


def test_a_config_without_any_names_is_one_without_names(tmp_path: Path) -> None:
    folder = save_checkpoint(FAMILIES["bert"](), tmp_path / "bert")
    content = json.loads((folder / "config.json").read_text())
    del content["id2label"], content["label2id"]  # transformers then names two classes, and the head has three
    (folder / "config.json").write_text(json.dumps(content))
    backbone = take(find(folder, tmp_path), class_names=("x", "y", "z"))
    assert torch.equal(backbone.model.get_parameter("classifier.weight"), FAMILIES["bert"]().classifier.weight)
    assert backbone.unfit is None and "does not name its classes" in backbone.notes[0]


def test_other_names_are_refused_before_training_and_a_new_output_layer_has_none(tmp_path: Path) -> None:
    source = named("bert", tmp_path, "dog", "cat", "cow")
    refused = take(source, class_names=("a", "b", "c")).unfit
    assert refused is not None and refused.startswith("model.path: the head of ") and "\n" not in refused
    assert "'dog', 'cat', 'cow', and the task has 'a', 'b', 'c'; in its config.json give id2label" in refused
    renewed = take(source, labels=5, class_names=tuple("abcde"))
    assert (renewed.unfit, renewed.notes) == (None, ())
    data = tmp_path / "d.csv"
    data.write_text("s,y\n" + "".join(f"w{3 + i % 90} w{4 + i % 80},{'abc'[i % 3]}\n" for i in range(60)))
    local = ["task=local", f"task.files.train={data}", "task.text=[s]", "task.label=y", "train.max_length=16"]
    mine = ["model.name=mine", f"model.path={source.directory}"]
    with pytest.raises(UserError, match=r"^model\.path: the head of .* has the classes 'dog'"):
        run(config(tmp_path / "store", *local, "task.train_rows=null", "task.eval_rows=null", *mine))
