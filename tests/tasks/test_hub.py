"""The hub is queried once; its cache suffices without it; without both there is a one-line error within seconds."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from loralab.errors import UserError
from loralab.tasks import hub
from tests.tasks.hub_layout import COMMIT, serve, snapshot, write_task

REPOSITORY = "nyu-mll/glue"
FILE = "rte/train-00000-of-00001.parquet"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty hub cache, no proxy, and an endpoint where nothing listens."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.commit.cache_clear()
    yield tmp_path / "hub"
    hub.commit.cache_clear()


def _use(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets the hub's address in both places where huggingface_hub stores HF_ENDPOINT at import."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")


def test_the_hubs_commit_and_files_come_down_once_and_then_serve_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_task(tmp_path / "glue", "rte")
    nowhere = constants.ENDPOINT
    with serve(tmp_path / "glue") as (endpoint, requests):
        _use(endpoint, monkeypatch)
        assert hub.commit(REPOSITORY, "main", asked_by="task=rte") == COMMIT
        path = hub.fetch(REPOSITORY, "main", (FILE,), asked_by="task=rte")[FILE]
        assert path.read_bytes() == (tmp_path / "glue" / FILE).read_bytes()
        seen = len(requests)
        assert hub.fetch(REPOSITORY, "main", (FILE,), asked_by="task=rte")[FILE] == path
        assert len(requests) == seen
    hub.commit.cache_clear()
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    assert hub.commit(REPOSITORY, "main", asked_by="task=rte") == COMMIT
    assert hub.fetch(REPOSITORY, "main", (FILE,), asked_by="task=rte")[FILE] == path
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.fetch(REPOSITORY, "main", (FILE,), asked_by="task=rte")[FILE] == path


def test_a_commit_needs_no_hub_to_name_itself() -> None:
    assert hub.commit(REPOSITORY, COMMIT, asked_by="task=rte") == COMMIT


def test_a_revision_or_file_that_the_hub_lacks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_task(tmp_path / "glue", "rte")
    with serve(tmp_path / "glue") as (endpoint, _):
        _use(endpoint, monkeypatch)
        with pytest.raises(UserError, match=r"task\.revision: nyu-mll/glue has no revision 'mian' at http://127"):
            hub.commit(REPOSITORY, "mian", asked_by="task=rte")
        with pytest.raises(
            UserError, match=r"task\.revision: nyu-mll/glue has no cola/x\.parquet at commit bcdcba79; try main"
        ):
            hub.fetch(REPOSITORY, "main", ("cola/x.parquet",), asked_by="task=cola")


def test_a_hub_that_fails_leaves_the_cache(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(tmp_path) as (endpoint, _):
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        with pytest.raises(UserError, match=r"task=rte: the data set .* \(http://127\S+ failed: .*500"):
            hub.commit(REPOSITORY, "broken", asked_by="task=rte")
        (snapshot(cache).parent.parent / "refs" / "broken").write_text(COMMIT)
        assert hub.commit(REPOSITORY, "broken", asked_by="task=rte") == COMMIT


LINE = (
    r"^task=rte: the data set nyu-mll/glue \(revision main\) is neither at the hub \({}\) "
    r"nor complete in its cache \(\S+\); "
)
OFFLINE = r"without a hub: task=rotten_tomatoes, imdb, .*snippets, .* or local$"


def test_no_hub_and_no_cache_is_one_line() -> None:
    with pytest.raises(UserError, match=LINE.format(r"no connection to http://127\.0\.0\.1:\d+") + OFFLINE):
        hub.commit(REPOSITORY, "main", asked_by="task=rte")


def test_a_download_that_cannot_start_is_not_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(tmp_path) as (endpoint, requests):
        _use(endpoint, monkeypatch)
        with pytest.raises(UserError, match="has no revision"):
            hub.fetch(REPOSITORY, "0" * 40, (FILE,), asked_by="task=rte")
        assert len(requests) == 1


def test_offline_mode_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with serve(tmp_path) as (endpoint, requests):
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        with pytest.raises(UserError, match=LINE.format("HF_HUB_OFFLINE is set") + OFFLINE):
            hub.commit(REPOSITORY, "main", asked_by="task=rte")
        assert requests == []


def test_a_cache_that_lacks_a_file_says_which(cache: Path) -> None:
    snapshot(cache)
    with pytest.raises(
        UserError, match=r"no connection to .*; the cache lacks rte/train-00000-of-00001\.parquet of commit bcdc"
    ):
        hub.fetch(REPOSITORY, "main", (FILE,), asked_by="task=rte")


def test_a_silent_network_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The listener never accepts and its backlog is full, so that connections neither open nor fail."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        address = silent.getsockname()
        callers = [socket.socket() for _ in range(4)]
        for caller in callers:
            caller.setblocking(False)
            caller.connect_ex(address)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{address[1]}")
        started = time.monotonic()
        with pytest.raises(UserError, match="no connection to"):
            hub.commit(REPOSITORY, "main", asked_by="task=rte")
        assert time.monotonic() - started < 5
        for caller in callers:
            caller.close()


def test_a_whole_program_without_a_network_prints_nothing_but_the_line(tmp_path: Path) -> None:
    program = (
        "from loralab import tasks; from loralab.errors import UserError\n"
        "try: tasks.identity(tasks.TaskSettings('rte', revision='main'), cache=None)\n"
        "except UserError as error: print(error)"
    )
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert time.monotonic() - started < 10
    assert done.stderr == "" and done.stdout.count("\n") == 1 and "task=rotten_tomatoes" in done.stdout
