"""Every task has a source and a file in conf/task, and the file agrees with the task."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from loralab.tasks import GENERATION, NAMES, RawTask, glue, packaged, sql
from loralab.tasks.registry import SOURCES

CONF = Path(__file__).parents[2] / "conf" / "task"


def test_tasks_and_their_files_are_the_same_names() -> None:
    assert {path.stem for path in CONF.glob("*.yaml")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_sets_the_name_and_what_its_kind_of_task_needs(name: str) -> None:
    values = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))
    (source,) = (source for source in SOURCES if name in source.names)
    assert values.pop("name") == name
    assert set(values) == source.uses - {"files", "text", "label", "kind"}  # these are the user's to set


@pytest.mark.parametrize("name", [*packaged.PACKAGED, "sql"])
def test_a_files_first_line_has_the_sizes(name: str, read: Callable[..., RawTask]) -> None:
    first = (CONF / f"{name}.yaml").read_text(encoding="utf-8").split("\n")[0]
    sizes = re.search(r"(\d[\d,]*)/(\d[\d,]*)/(\d[\d,]*\d)", first)
    assert sizes is not None
    own = list(sql.SIZES.values()) if name == "sql" else [len(split) for split in read(name).splits.values()]
    assert [int(size.replace(",", "")) for size in sizes.groups()] == own


def test_generation_tasks_are_those_of_pairs() -> None:
    assert set(GENERATION) == set(NAMES) - {*packaged.names(generates=False), *glue.GLUE, "local"}


def test_no_name_has_two_sources() -> None:
    assert len(NAMES) == sum(len(source.names) for source in SOURCES)
