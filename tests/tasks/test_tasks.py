"""Every task has its file in conf/task, and the file says what is true of it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from loralab.tasks import NAMES, RawTask, glue, packaged

CONF = Path(__file__).parents[2] / "conf" / "task"


def test_tasks_and_their_files_are_the_same_names() -> None:
    assert {path.stem for path in CONF.glob("*.yaml")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_sets_the_name_and_what_its_kind_of_task_needs(name: str) -> None:
    values = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))
    needed = {task: {"name"} for task in packaged.PACKAGED} | {task: {"name", "revision"} for task in glue.GLUE}
    needed["local"] = {"name", "validation_share", "test_share", "split_seed"}
    assert values["name"] == name
    assert set(values) == needed[name]


@pytest.mark.parametrize("name", packaged.PACKAGED)
def test_a_files_first_line_has_the_sizes(name: str, read: Callable[..., RawTask]) -> None:
    first = (CONF / f"{name}.yaml").read_text(encoding="utf-8").split("\n")[0]
    sizes = re.search(r"(\d[\d,]*)/(\d[\d,]*)/(\d[\d,]*\d)", first)
    assert sizes is not None
    assert [int(size.replace(",", "")) for size in sizes.groups()] == [len(s) for s in read(name).splits.values()]
