"""`loralab watch`: a page on localhost that shows a sweep while it trains. It answers GET, and writes nothing.

/             the page, its style and its script: plain files beside this module
/events       server-sent events: `sweep` (what WatchedSweep.look gives), `curves` (of the runs where they changed)
/figure.png   the sweep's figure

Only this machine reaches it, and only under a name of this machine: a page of another site, whose name was made to
point here (DNS rebinding), sends that site's name, and is refused.
"""

import contextlib
import json
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from loralab.errors import UserError
from loralab.files import read_regular
from loralab.inspect.watched_sweep import WatchedSweep
from loralab.text import shown

__all__ = ["ADDRESS", "PORT", "PORTS", "WatchServer", "open_server"]

ADDRESS = "127.0.0.1"
PORT = 8317
"""The default port; of the PORTS from there the first that is free."""
PORTS = 20
NAMES = ("127.0.0.1", "localhost", "[::1]")  # of this machine, as a browser writes them; any port, for a tunnel's
LOOK_SECONDS = 1.0  # between two looks at the store
BEAT_SECONDS = 15.0  # between two comments, so that a lost connection is noticed
AGAIN_MS = 1000  # after which a page connects again
PATIENCE = 30.0  # seconds that a client has to send its request, or to take what it is sent
RUNS_A_MESSAGE = 50  # whose curves are sent in one event

PAGE = Path(__file__).parent / "watch_page"
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/watch.css": ("watch.css", "text/css; charset=utf-8"),
    "/watch.js": ("watch.js", "text/javascript; charset=utf-8"),
    "/charts.js": ("charts.js", "text/javascript; charset=utf-8"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class WatchServer(ThreadingHTTPServer):
    """Serves the sweep that `choose` names, None while there is none. Every client sees the same looks.

    every: seconds between two looks, which are taken only while a page is open.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int, store: Path, choose: Callable[[], str | None], *, every: float = LOOK_SECONDS):
        self.store, self.choose, self.every = store, choose, every
        self.ending = threading.Event()
        self.looking = threading.Lock()
        self.watched: WatchedSweep | None = None
        self.seen: dict[str, Any] = {}
        self.looked = -every
        super().__init__((ADDRESS, port), _Handler)

    def server_bind(self) -> None:
        """Without the look-up of this machine's name, which http.server does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error; another one is a bug, and is printed."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.server_port}/"

    def look(self) -> tuple[dict[str, Any], WatchedSweep | None]:
        """The sweep as it is now, or was a moment ago."""
        with self.looking:
            if time.monotonic() - self.looked >= self.every:
                began = time.monotonic()
                self.seen = self._seen()
                # a look at a thousand runs takes a while, and leaves the processor to the runs
                self.looked = time.monotonic() + 10 * (time.monotonic() - began)
            return self.seen, self.watched

    def _seen(self) -> dict[str, Any]:
        try:
            name = self.choose()
            if name is None:
                self.watched = None
                return {"id": None, "store": str(self.store)}
            if self.watched is None or self.watched.name != name:
                self.watched = WatchedSweep(self.store, name)
            return self.watched.look()
        except (UserError, OSError) as error:  # OSError: of a store that may not be read
            self.watched = None
            return {"id": None, "store": str(self.store), "error": shown(str(error))}


class _Handler(BaseHTTPRequestHandler):
    server: WatchServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "loralab", ""
    timeout = PATIENCE

    def do_GET(self) -> None:
        """The only method."""
        path = self.path.partition("?")[0]
        if self._host() not in NAMES:
            self._refuse(HTTPStatus.FORBIDDEN, f"open {self.server.url}: it answers under this name alone")
        elif path in FILES:
            name, kind = FILES[path]
            self._send((PAGE / name).read_bytes(), kind)
        elif path == "/events":
            self._stream()
        elif path == "/figure.png":
            self._figure()
        else:
            self._refuse(HTTPStatus.NOT_FOUND, f"there is no {shown(path, longest=80)} here")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Of a request that http.server cannot read, or whose method is not GET."""
        allowed = {"Allow": "GET"} if code == HTTPStatus.NOT_IMPLEMENTED else {}
        code = HTTPStatus.METHOD_NOT_ALLOWED if allowed else code
        self._refuse(code, "it answers GET alone" if allowed else message or "", **allowed)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are not printed."""

    def _host(self) -> str:
        """The Host header without its port."""
        host = self.headers.get("Host", "")
        name, colon, port = host.rpartition(":")
        return name.lower() if colon and port.isdecimal() else host.lower()

    def _send(self, content: bytes, kind: str, status: int = HTTPStatus.OK, **more: str) -> None:
        self._begin(kind, status, {"Content-Length": str(len(content)), **more})
        self.wfile.write(content)

    def _refuse(self, status: int, why: str, **more: str) -> None:
        self.close_connection = True  # what else the client sent is not read
        self._send(f"{why}\n".encode(errors="replace"), "text/plain; charset=utf-8", status, Connection="close", **more)

    def _begin(self, kind: str, status: int, more: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **more, **HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()

    def _figure(self) -> None:
        _, watched = self.server.look()
        path = None if watched is None else watched.figure()
        if path is None:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no figure yet")
            return
        try:
            content = read_regular(Path(path))
        except OSError:
            self._refuse(HTTPStatus.NOT_FOUND, "the figure cannot be read")
        else:
            self._send(content, "image/png")

    def _stream(self) -> None:
        """Events until the client or the server goes."""
        self.close_connection = True
        self._begin("text/event-stream", HTTPStatus.OK, {"Connection": "close"})
        beat = time.monotonic()
        with contextlib.suppress(OSError):  # the client has gone
            self.wfile.write(f"retry: {AGAIN_MS}\n\n".encode())
            for name, content in self._events():
                if name:
                    self.wfile.write(f"event: {name}\ndata: {content}\n\n".encode())
                    beat = time.monotonic()
                elif time.monotonic() - beat >= BEAT_SECONDS:
                    self.wfile.write(b": \n\n")
                    beat = time.monotonic()

    def _events(self) -> Iterator[tuple[str, str]]:
        """(name, data) of each change; empty names between, so that a beat can be sent."""
        last, sent, sweep = "", dict[str, int](), None
        while not self.server.ending.is_set():
            seen, watched = self.server.look()
            if watched is not sweep:
                sent, sweep = {}, watched
            text = json.dumps(seen)
            if text != last:
                last = text
                yield "sweep", text
            for changed in self._changed(watched, sent):
                yield "curves", changed
            yield "", ""
            self.server.ending.wait(self.server.every)

    def _changed(self, watched: WatchedSweep | None, sent: dict[str, int]) -> Iterator[str]:
        """The curves that changed since they were sent, some runs at a time."""
        with self.server.looking:
            curves = {} if watched is None else watched.curves
            new = {run: (c.version, c.thinned()) for run, c in curves.items() if sent.get(run, 0) != c.version}
        sent |= {run: version for run, (version, _) in new.items()}
        names = list(new)
        for at in range(0, len(names), RUNS_A_MESSAGE):
            yield json.dumps({run: new[run][1] for run in names[at : at + RUNS_A_MESSAGE]})


def open_server(store: Path, choose: Callable[[], str | None], *, port: int | None, every: float = LOOK_SECONDS) -> Any:
    """A server that listens. port: None for the first free one from PORT on, 0 for any free one.

    Raises UserError where the port is in use, or not this user's.
    """
    for number in [port] if port is not None else range(PORT, PORT + PORTS):
        try:
            return WatchServer(number, store, choose, every=every)
        except PermissionError as error:
            raise UserError(f"--port: {number} cannot be opened ({error.strerror}); name one above 1023") from error
        except OSError as error:
            why = error.strerror
    if port is None:
        raise UserError(f"--port: {PORT} to {PORT + PORTS - 1} are in use; name another one, or 0 for any that is free")
    raise UserError(f"--port: {port} cannot be opened ({why}); leave it out, or name another one")
