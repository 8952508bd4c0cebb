"""The page's server: it answers GET under this machine's names alone, and sends what changes, as it changes."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from loralab.errors import UserError
from loralab.inspect import watch_server
from loralab.inspect.watch_server import ADDRESS, PORT, PORTS, WatchServer, open_server
from loralab.inspect.watched_sweep import newest
from tests.live_sweeps import LiveSweep, key

SETTINGS = [{"seed": "0"}, {"seed": "1"}]
EVERY = 0.02


@contextmanager
def served(store: Path, every: float = EVERY, port: int = 0) -> Iterator[WatchServer]:
    """A server of the latest sweep of a store, in a thread."""
    with open_server(store, lambda: newest(store), port=port, every=every) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.ending.set()
            server.shutdown()
            thread.join()


def asked(
    server: WatchServer, path: str, method: str = "GET", host: str | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and content of one request."""
    connection = http.client.HTTPConnection(ADDRESS, server.server_port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    if host != "":
        connection.putheader("Host", host or f"localhost:{server.server_port}")
    connection.endheaders()
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), content


@contextmanager
def stream(server: WatchServer) -> Iterator[Iterator[tuple[str, Any]]]:
    """The events of /events as (name, data)."""
    connection = http.client.HTTPConnection(ADDRESS, server.server_port, timeout=10)
    connection.request("GET", "/events")
    answer = connection.getresponse()
    assert answer.getheader("Content-Type") == "text/event-stream"
    assert answer.readline() == b"retry: 1000\n" and answer.readline() == b"\n"

    def events() -> Iterator[tuple[str, Any]]:
        while line := answer.readline():
            name, data, end = line.decode(), answer.readline().decode(), answer.readline()
            assert end == b"\n"
            yield name.removeprefix("event: ").strip(), json.loads(data.removeprefix("data: "))

    yield events()
    answer.close()
    connection.close()


def files(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob("*"))}


def test_the_page_and_its_files_are_served_with_a_policy_that_allows_no_other_address(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        for path, kind in (("/", "text/html"), ("/watch.js", "text/javascript"), ("/watch.css?x=1", "text/css")):
            status, headers, content = asked(server, path)
            assert status == 200 and headers["Content-Type"].startswith(kind) and content
            assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
            assert "Access-Control-Allow-Origin" not in headers
    for file in watch_server.PAGE.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not any(word in text for word in ("http:", "https:", "innerHTML", "@import", "url(")), file


@pytest.mark.parametrize("path", ["/../../etc/passwd", "/%2e%2e/x", "//etc/passwd", "/watch.css/", "/x", "/runs", "*"])
def test_no_other_path_is_there(path: str, tmp_path: Path) -> None:
    with served(tmp_path) as server:
        status, _, content = asked(server, path)
    assert status == 404 and content.decode() == f"there is no {path.replace('//', '/')} here\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
def test_it_answers_get_alone(method: str, tmp_path: Path) -> None:
    with served(tmp_path) as server:
        status, headers, content = asked(server, "/", method)
    assert (status, headers["Allow"]) == (405, "GET")
    assert content == (b"" if method == "HEAD" else b"it answers GET alone\n")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LOCALHOST:9", 200), ("127.0.0.1:80", 200), ("[::1]:80", 200),
        ("evil.example", 403), ("evil.example:8317", 403), ("localhost.evil.example", 403), ("127.0.0.1.nip.io", 403),
        ("", 403), ("localhost:x", 403), ("127.0.0.1@evil.example", 403),
    ],
)  # fmt: skip
def test_it_answers_under_the_names_of_this_machine_alone(host: str, status: int, tmp_path: Path) -> None:
    with served(tmp_path) as server:
        assert server.server_address[0] == "127.0.0.1"
        for path in ("/", "/figure.png"):
            assert asked(server, path, host=host)[0] in ((status,) if status == 403 else (200, 404))
        assert asked(server, "/", host=host)[0] == status


@pytest.mark.parametrize("request_line", [b"\x16\x03\x01 what", b"GET / HTTP/what", b"GET " + b"x" * 70_000])
def test_what_is_no_request_is_refused_in_a_line(request_line: bytes, tmp_path: Path) -> None:
    with served(tmp_path) as server:
        with socket.create_connection((ADDRESS, server.server_port), timeout=10) as client:
            client.sendall(request_line + b"\r\n\r\n")
            said = client.makefile("rb").readlines()
        assert b"Bad" in said[-1] or b"414" in said[0]
        assert asked(server, "/")[0] == 200


def test_each_change_is_sent_and_the_curves_of_the_runs_that_went_on(tmp_path: Path) -> None:
    sweep = LiveSweep(tmp_path, SETTINGS)
    with served(tmp_path) as server, stream(server) as events:
        name, seen = next(events)
        assert (name, seen["id"], seen["counts"]) == ("sweep", "sweep-0123456789", {"waiting": 2})
        sweep.begins(0)
        sweep.comes_to(0, 5, loss=0.5)
        while "running" not in seen["counts"] or seen["runs"][0]["step"] != 5:
            name, seen = next((name, data) for name, data in events if name == "sweep")
        name, curves = next((name, data) for name, data in events if name == "curves")
        while len(curves[key(0)]) < 2:
            name, curves = next((name, data) for name, data in events if name == "curves")
        assert curves == {key(0): {"train/loss": [[5, 0.2]], "validation/loss": [[5, 0.5]]}}
        sweep.ends(0)
        assert next(data for name, data in events if name == "sweep" and "done" in data["counts"])["over"] == 1
        with stream(server) as later:  # as a browser does that connects again
            assert next(later)[1]["counts"] == {"done": 1, "waiting": 1}
            assert key(0) in next(later)[1]


def test_a_sweep_that_begins_later_appears_and_one_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    with served(tmp_path) as server, stream(server) as events:
        assert next(events) == ("sweep", {"id": None, "store": str(tmp_path)})
        LiveSweep(tmp_path, SETTINGS)
        assert next(events)[1]["id"] == "sweep-0123456789"
        (tmp_path / "live" / "sweep-0123456789" / "sweep.json").write_text("{")
        assert "cannot be read" in next(events)[1]["error"]


def test_the_figure_is_sent_once_it_is_there(tmp_path: Path) -> None:
    figure = tmp_path / "x.png"
    LiveSweep(tmp_path, SETTINGS, figures=[figure])
    with served(tmp_path) as server:
        assert asked(server, "/figure.png")[0] == 404
        figure.write_bytes(b"a figure")
        server.looked = 0.0
        status, headers, content = asked(server, "/figure.png")
        assert (status, headers["Content-Type"], content) == (200, "image/png", b"a figure")


def test_watching_writes_nothing(tmp_path: Path) -> None:
    sweep = LiveSweep(tmp_path, SETTINGS)
    sweep.begins(0)
    before = files(tmp_path)
    with served(tmp_path) as server, stream(server) as events:
        next(events)
        asked(server, "/")
    assert files(tmp_path) == before


def test_a_port_in_use_is_one_line_and_by_default_the_next_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(tmp_path) as server:
        port = server.server_port
        with pytest.raises(
            UserError, match=rf"--port: {port} cannot be opened \(Address already in use\); leave it out"
        ):
            open_server(tmp_path, lambda: None, port=port)
        monkeypatch.setattr(watch_server, "PORT", port)
        monkeypatch.setattr(watch_server, "PORTS", 1)
        with pytest.raises(UserError, match=f"--port: {port} to {port} are in use; name another one"):
            open_server(tmp_path, lambda: None, port=None)
        monkeypatch.setattr(watch_server, "PORTS", PORTS)
        with open_server(tmp_path, lambda: None, port=None) as other:
            assert port < other.server_port < port + PORTS
    assert PORT > 1023
