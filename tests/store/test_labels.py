"""Name and tags of a run: they can be given again, and a damaged file is no trouble."""

from pathlib import Path

import pytest

from loralab.store.labels import Labels, label, labels_of


def test_a_run_without_labels_has_none(tmp_path: Path) -> None:
    assert labels_of(tmp_path) == Labels() == label(tmp_path, Labels())
    assert not list(tmp_path.iterdir()), "nothing is written"


def test_a_name_replaces_the_one_that_is_there_and_tags_are_added(tmp_path: Path) -> None:
    label(tmp_path, Labels("one", ("a", "b")))
    assert label(tmp_path, Labels(tags=("b", "c"))) == Labels("one", ("a", "b", "c"))
    assert label(tmp_path, Labels("two")) == labels_of(tmp_path) == Labels("two", ("a", "b", "c"))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": 3, "tags": []}', '{"name": null, "tags": [1]}', "[" * 9999])
def test_a_damaged_file_counts_as_no_labels(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.json").write_text(text)
    assert labels_of(tmp_path) == Labels()
