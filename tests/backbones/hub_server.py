"""A small real hub: an HTTP server with the endpoints that huggingface_hub calls."""

import hashlib
import http.server
import json
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEWER = "fedcba9876543210fedcba9876543210fedcba98"
MODEL = "someone/tiny-roberta"


class Hub:
    """The endpoints of a hub that serves one directory as `MODEL`; counts the requests."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.revisions = {"main": COMMIT, "v1": COMMIT, COMMIT: COMMIT}
        self.gated = False
        self.broken: str | None = None
        self.asked: list[str] = []
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                hub.asked.append(f"{self.command} {self.path}")
                parts = self.path.split("?")[0].strip("/").split("/")
                if parts[:2] == ["api", "models"]:
                    self._api("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
                else:
                    self._file(parts[3], "/".join(parts[4:]))

            def _api(self, model: str, revision: str) -> None:
                if model != MODEL:
                    self._refuse(401, "RepoNotFound")
                elif revision not in hub.revisions:
                    self._refuse(404, "RevisionNotFound")
                elif hub.broken == "api":
                    self._refuse(503, "Unavailable")
                else:
                    siblings = [{"rfilename": file.name} for file in hub.directory.iterdir()]
                    answer = {"id": model, "sha": hub.revisions[revision], "siblings": siblings, "tags": []}
                    self._send(json.dumps(answer).encode())

            def _file(self, commit: str, name: str) -> None:
                if hub.gated:
                    self._refuse(403, "GatedRepo")
                elif hub.broken == name and self.command == "GET":
                    self._send(b"half", claimed=4000)
                else:
                    self._send((hub.directory / name).read_bytes(), commit=commit)

            def _send(self, body: bytes, commit: str | None = None, claimed: int | None = None) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(claimed if claimed is not None else len(body)))
                if commit is not None:
                    self.send_header("X-Repo-Commit", commit)
                    self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def _refuse(self, status: int, code: str) -> None:
                self.send_response(status)
                self.send_header("X-Error-Code", code)
                self.send_header("X-Error-Message", code)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
