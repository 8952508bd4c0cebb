"""Checkpoints of every family, saved once per session, and a copy to damage."""

from collections.abc import Callable
from pathlib import Path

import pytest

from loralab.backbones.source import Source
from tests.backbones.checkpoints import find
from tests.families import FAMILIES, save_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Source]:
    """Family -> Source of its saved base model (no head), or of the classifier."""
    made: dict[tuple[str, bool], Source] = {}

    def get(family: str, *, classifier: bool = False) -> Source:
        if (family, classifier) not in made:
            model = FAMILIES[family]()
            directory = tmp_path_factory.mktemp(family)
            save_checkpoint(model if classifier else model.base_model, directory)
            made[family, classifier] = find(directory, directory.parent / "digests")
        return made[family, classifier]

    return get


@pytest.fixture
def bert(checkpoint: Callable[..., Source], tmp_path: Path) -> Path:
    """A copy of the BERT checkpoint, to damage."""
    source = checkpoint("bert")
    assert source.directory is not None
    directory = tmp_path / "bert"
    directory.mkdir()
    for file in source.directory.iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    return directory
