"""The hub's client: the probe always answers within three seconds; the cache is read in its layout.

The tests of its callers cover a hub's answers: backbones/test_snapshot.py and tasks/test_hub.py.
"""

import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from loralab.hub import BrokenOffError, HubError, OfflineError, Repository, is_commit, reachable

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_name_lookup_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        release.wait(30)
        raise socket.gaierror("no answer")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    started = time.monotonic()
    assert not reachable("https://hub.example")
    assert time.monotonic() - started < 5
    release.set()


def test_probe_goes_to_the_proxy_that_leads_to_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.delenv("no_proxy", raising=False)
        assert reachable("https://hub.example")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert not reachable("https://127.0.0.1:9")


def test_a_branch_is_remembered_as_its_commit_and_a_commit_is_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for repository, folder in (
        (Repository("model", "someone/model"), "models--someone--model"),
        (Repository("dataset", "someone/data"), "datasets--someone--data"),
    ):
        assert repository.remembered("main") is None
        repository.remember("refs/convert/parquet", COMMIT)
        repository.remember(COMMIT, COMMIT)
        assert repository.remembered("refs/convert/parquet") == repository.remembered(COMMIT) == COMMIT
        assert (tmp_path / folder / "refs" / "refs" / "convert" / "parquet").read_text() == COMMIT
        assert not (tmp_path / folder / "refs" / COMMIT).exists()
        assert repository.snapshot(COMMIT) == tmp_path / folder / "snapshots" / COMMIT


def test_a_commit_is_forty_hex_digits() -> None:
    assert is_commit(COMMIT)
    assert not any(map(is_commit, ("main", COMMIT[:-1], COMMIT + "0", COMMIT.upper())))


def test_offline_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("a connection"))
    with pytest.raises(OfflineError, match=r"^HF_HUB_OFFLINE is set$"):
        Repository("model", "someone/model").ask("main")


def test_a_download_without_a_hub_breaks_off_and_names_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError) as info:
        Repository("dataset", "someone/data").download(COMMIT, ["train.csv", "test.csv"])
    assert isinstance(info.value, BrokenOffError) and info.value.file == "train.csv"
    assert str(info.value).startswith("the download failed: ") and "\n" not in str(info.value)
