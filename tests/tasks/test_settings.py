"""Task settings compare by value, and each is a key of the config's `task` node."""

from dataclasses import fields

from loralab.config.schema import FilesConfig, TaskConfig
from loralab.tasks import TaskFiles, TaskSettings


def test_settings_are_the_configs_keys_without_the_metric_the_loss_and_the_title() -> None:
    assert [field.name for field in fields(TaskSettings)] == [
        field.name for field in fields(TaskConfig) if field.name not in ("metric", "class_weights", "title")
    ]
    assert [field.name for field in fields(TaskFiles)] == [field.name for field in fields(FilesConfig)]


def test_equal_settings_are_one_key() -> None:
    one, other = (TaskSettings("local", files=TaskFiles(train="a.csv"), text=("a", "b")) for _ in range(2))
    assert one == other and len({one, other}) == 1
    assert one != TaskSettings("local", files=TaskFiles(train="b.csv"), text=("a", "b"))


def test_files_that_are_set_stand_by_their_split() -> None:
    assert TaskFiles(train="a", test="b").given() == {"train": "a", "test": "b"}
    assert TaskFiles().given() == {}
