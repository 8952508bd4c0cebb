"""Fixtures shared by the top-level tests: finished runs, made once a session, and an end to every process."""

import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: pytest's processes share the cores, as a sweep's do

from loralab.store.runs import RunDirectory
from tests.processes import end_all
from tests.runs import config


@pytest.fixture(autouse=True)
def _nothing_left_running() -> Iterator[None]:
    yield
    end_all()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A small run of the tiny backbone that ended in success; not to be changed."""
    from loralab.run import run

    store = tmp_path_factory.mktemp("finished")
    run(config(store))
    (path,) = (store / "runs").iterdir()
    return RunDirectory(path)
