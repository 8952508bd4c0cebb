"""A backbone is called what it is: a folder that replaces a named one by its own name."""

from pathlib import Path

import pytest

from loralab.config.backbone_name import backbone_name
from tests.small_runs import config


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ((), "tiny"),
        (("model=minilm",), "minilm"),
        (("model=minilm", "model.path=/somewhere/my_bert"), "my_bert"),
        (("model=minilm", "model.path=models/llama.q4.gguf"), "llama.q4"),
        (("model=roberta", "model.path=../own/"), "own"),
        (("model=minilm", "model.name=mine", "model.path=/somewhere/my_bert"), "mine"),
        (("model=width_64", "model.path=/somewhere/pretrained/width_64/model"), "width_64"),
    ],
)
def test_a_folder_that_replaces_a_named_backbone_has_its_own_name(
    overrides: tuple[str, ...], name: str, tmp_path: Path
) -> None:
    assert backbone_name(config(tmp_path, *overrides).model) == name
