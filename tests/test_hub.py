"""Laws of the probe, against real sockets: it answers in three seconds whatever happens, and knows of proxies."""

import socket
import threading
import time
from typing import Any

import pytest

from loralab.hub import reachable


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
