"""A backbone of the user's own replaces the one of conf/model/NAME.yaml, and the run goes by its name."""

from pathlib import Path

import pytest

from loralab.config.command import settings
from tests.small_runs import config

OWN = {
    ("model.path=some/where/bert",): ("bert", "path"),
    ("model.path=some/where/bert/model",): ("bert", "path"),
    ("model.path=some/bert.gguf",): ("bert", "path"),
    ("model.path=hub/models--org--bert/snapshots/0123abc",): ("bert", "path"),
    ("model.hub=org/bert",): ("bert", "hub"),
    ("model.package=my_package/model",): ("my_package", "package"),
    ("model.hub=org/gpt", "model.path=some/bert"): ("bert", "path"),
}


@pytest.mark.parametrize("of", ["minilm", "roberta", "width_64", "tiny"])
@pytest.mark.parametrize("own", OWN, ids=" ".join)
def test_a_source_of_the_users_own_replaces_the_files_and_names_the_model(
    tmp_path: Path, of: str, own: tuple[str, ...]
) -> None:
    model = config(tmp_path, f"model={of}", *own).model
    assert (model.name, next(key for key in ("path", "hub", "package") if getattr(model, key))) == OWN[own]
    others = {given.partition("=")[0].removeprefix("model.") for given in own}
    assert {key for key in ("path", "hub", "package") if getattr(model, key)} == others


@pytest.mark.parametrize("of", ["minilm", "roberta", "width_64", "tiny", "bert_width_128"])
def test_the_files_own_source_keeps_the_files_name(tmp_path: Path, of: str) -> None:
    assert config(tmp_path, f"model={of}").model.name == of


def test_a_name_of_the_users_own_is_kept(tmp_path: Path) -> None:
    assert config(tmp_path, "model=minilm", "model.name=mine", "model.path=some/bert").model.name == "mine"


@pytest.mark.parametrize("own", [("model.path=some/bert",), ("model.hub=org/bert",)], ids=" ".join)
def test_the_command_of_a_run_composes_its_config_again(tmp_path: Path, own: tuple[str, ...]) -> None:
    asked = config(tmp_path, "model=minilm", *own)
    again = config(tmp_path, "model=minilm", *settings(asked))
    assert (again.model.name, again.model.hub, again.model.path) == ("bert", asked.model.hub, asked.model.path)
    assert again.model == asked.model


@pytest.mark.parametrize("path", ["/", ".", "ü" * 100])
def test_a_path_without_a_name_or_with_a_long_one_is_no_trouble(tmp_path: Path, path: str) -> None:
    assert 0 < len(config(tmp_path, "model=minilm", f"model.path='{path}'").model.name.encode()) <= 60
