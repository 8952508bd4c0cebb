"""Fixtures shared by the top-level tests: finished runs, made once a session."""

import pytest

from loralab.store.runs import RunDirectory
from tests.runs import config


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A small run of the tiny backbone that ended in success; not to be changed."""
    from loralab.run import run

    store = tmp_path_factory.mktemp("finished")
    run(config(store))
    (path,) = (store / "runs").iterdir()
    return RunDirectory(path)
