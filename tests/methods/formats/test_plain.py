"""A merged checkpoint is a plain transformers model with the same logits."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from loralab.backbones.tiny import make_tokenizer
from loralab.errors import UserError
from loralab.methods.formats.plain import export_merged, load_model, load_weights, save_model
from loralab.methods.lora import merge
from tests.adapted import adapt, frozen, logits, shake
from tests.families import FAMILIES


def loaded(directory: Path) -> Any:
    """The checkpoint as transformers loads it; every tensor of the model is in the files, and nothing else."""
    from transformers import AutoModelForSequenceClassification

    model, info = AutoModelForSequenceClassification.from_pretrained(
        directory, output_loading_info=True, attn_implementation="eager", dtype="auto"
    )
    assert not any(info.values()), info
    return model


@pytest.mark.parametrize("bias", ["none", "all"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_merged_checkpoint_gives_the_same_logits(family: str, bias: str, tmp_path: Path) -> None:
    model = adapt(family, targets=["all"] if bias == "all" else ["q", "v"], bias=bias)
    shake(model)
    before = logits(model)
    export_merged(model, make_tokenizer(), tmp_path / "plain", dtype=torch.float32)
    assert torch.equal(logits(model), before), "the model itself is left alone"
    torch.testing.assert_close(logits(loaded(tmp_path / "plain")), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("family", "table"), [("bert", "word_embeddings"), ("t5", "encoder.embed_tokens")])
def test_an_adapted_embedding_is_merged_also_where_its_table_is_tied(family: str, table: str, tmp_path: Path) -> None:
    model = adapt(family, targets=[table])
    shake(model)
    export_merged(model, make_tokenizer(), tmp_path / "plain", dtype=torch.float32)
    torch.testing.assert_close(logits(loaded(tmp_path / "plain")), logits(model), rtol=0, atol=1e-5)


def test_a_model_that_is_merged_already_exports_the_same(tmp_path: Path) -> None:
    model = adapt("gpt2")
    shake(model)
    before = logits(model)
    merge(model)
    export_merged(model, make_tokenizer(), tmp_path / "plain", dtype=torch.float32)
    torch.testing.assert_close(logits(loaded(tmp_path / "plain")), before, rtol=0, atol=1e-5)


def test_a_model_without_lora_exports_its_head(tmp_path: Path) -> None:
    model = frozen("distilbert")
    shake(model)
    export_merged(model, make_tokenizer(), tmp_path / "plain", dtype=torch.float32)
    assert torch.equal(logits(loaded(tmp_path / "plain")), logits(model))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_comes_back_to_the_bit_in_place_of_an_older_one(family: str, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    save_model(FAMILIES["bert"](), directory)
    model = FAMILIES[family]()
    shake(model)
    save_model(model, directory)
    assert {path.name for path in directory.iterdir()} == {"config.json", "model.safetensors"}
    for found in (loaded(directory), load_model(directory, type(model))):
        state = found.state_dict()
        assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


WEIGHTS = "model.safetensors"
DAMAGED: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a missing tensor": ("its model.safetensors does not fit its config.json: .* is missing", lambda path: less(path)),
    "a strange tensor": ("x is unexpected", lambda path: more(path)),
    "another shape": ("is mismatched", lambda path: shorter(path)),
    "cut off": ("its model is damaged", lambda path: (path / WEIGHTS).write_bytes((path / WEIGHTS).read_bytes()[:999])),
    "text": ("its model is damaged", lambda path: (path / WEIGHTS).write_text("weights")),
    "no weights": ("its model is damaged", lambda path: (path / WEIGHTS).unlink()),
    "a list": ("its model is damaged", lambda path: (path / "config.json").write_text("[]")),
    "no layers": ("missing|unexpected", lambda path: changed(path, num_hidden_layers=1)),
    "an activation": ("its model is damaged", lambda path: changed(path, hidden_act="tomorrow")),
}


def changed(path: Path, **fields: Any) -> None:
    config = path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | fields))


def rewritten(path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_file(change(load_file(path / WEIGHTS)), path / WEIGHTS, metadata={"format": "pt"})


def less(path: Path) -> None:
    rewritten(path, lambda tensors: dict([*tensors.items()][1:]))


def more(path: Path) -> None:
    rewritten(path, lambda tensors: tensors | {"x": torch.ones(1)})


def shorter(path: Path) -> None:
    rewritten(path, lambda tensors: {key: value[:1].clone() for key, value in tensors.items()})


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_model_is_one_line_and_never_loads_in_part(name: str, tmp_path: Path) -> None:
    """transformers draws what is missing at random."""
    message, damage = DAMAGED[name]
    save_model(FAMILIES["bert"](), tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(UserError, match=message) as error:
        load_weights(FAMILIES["bert"](), tmp_path / "model")
    assert "\n" not in str(error.value) and str(error.value).startswith(f"{tmp_path / 'model'}: ")


def test_a_model_of_another_shape_is_refused(tmp_path: Path) -> None:
    save_model(cast(Any, FAMILIES["bert"])(labels=5), tmp_path / "model")
    with pytest.raises(
        UserError, match=r"not fit the model: classifier\.bias: \(5,\) in the file, \(3,\) in the model"
    ):
        load_weights(FAMILIES["bert"](), tmp_path / "model")


def test_the_precision_is_the_one_asked_for(tmp_path: Path) -> None:
    model = adapt("t5")
    export_merged(model, make_tokenizer(), tmp_path / "plain", dtype=torch.bfloat16)
    assert json.loads((tmp_path / "plain" / "config.json").read_text())["dtype"] == "bfloat16"
    plain = loaded(tmp_path / "plain")
    assert {p.dtype for p in plain.parameters()} == {torch.bfloat16}
    stored = load_file(tmp_path / "plain" / "model.safetensors")
    assert [name for name in stored if "shared" in name or "embed_tokens" in name] == ["transformer.shared.weight"]


def test_the_tokenizer_is_there_and_the_class_names(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    model = adapt("bert")
    model.config.id2label = {0: "bad", 1: "good", 2: "odd"}
    tokenizer = make_tokenizer()
    export_merged(model, tokenizer, tmp_path / "plain", dtype=torch.float32)
    text = "a lovely film"
    assert AutoTokenizer.from_pretrained(tmp_path / "plain")(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded(tmp_path / "plain").config.id2label == {0: "bad", 1: "good", 2: "odd"}


def test_a_directory_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "note").write_text("mine")
    with pytest.raises(UserError, match="is not an empty directory; name a new one"):
        export_merged(adapt("bert"), make_tokenizer(), tmp_path, dtype=torch.float32)
    assert [path.name for path in tmp_path.iterdir()] == ["note"]
