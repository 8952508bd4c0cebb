"""A tiny `nyu-mll/glue`: its parquet files, a hub cache that holds them, and a server that serves them (or others)."""

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

COMMIT = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
COLUMNS = {
    "cola": ("sentence",), "sst2": ("sentence",), "mrpc": ("sentence1", "sentence2"),
    "stsb": ("sentence1", "sentence2"), "qqp": ("question1", "question2"), "mnli": ("premise", "hypothesis"),
    "qnli": ("question", "sentence"), "rte": ("sentence1", "sentence2"),
}  # fmt: skip


def write_task(root: Path, name: str, train: int = 60, test: int = 12) -> None:
    """The task's parquet files as the hub lays them out, with labels -1 in the hidden test sets."""
    tests = ("validation_matched", "validation_mismatched") if name == "mnli" else ("validation",)
    for part, rows in (("train", train), *((part, test) for part in tests), ("test", test)):
        texts = {column: [f"{name} {part} {column} {i}" for i in range(rows)] for column in COLUMNS[name]}
        if name == "stsb":
            labels = pa.array([-1.0 if part == "test" else i % 11 / 2 for i in range(rows)], pa.float32())
        else:
            labels = pa.array(
                [-1 if part == "test" else i % (3 if name == "mnli" else 2) for i in range(rows)], pa.int64()
            )
        path = root / name / f"{part}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({**texts, "label": labels, "idx": list(range(rows))}), path)


def snapshot(cache: Path, commit: str = COMMIT, repository: str = "nyu-mll/glue", revision: str = "main") -> Path:
    """The folder of a commit in a hub cache, with `revision` naming it."""
    folder = cache / f"datasets--{repository.replace('/', '--')}"
    (folder / "refs" / revision).parent.mkdir(parents=True)
    (folder / "refs" / revision).write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    return folder / "snapshots" / commit


@contextmanager
def serve(root: Path, repository: str = "nyu-mll/glue") -> Iterator[tuple[str, list[str]]]:
    """A hub at 127.0.0.1 with the files of `root` at one commit: (its endpoint, the requests it got)."""
    requests: list[str] = []

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(f"{self.command} {self.path}")
            api, resolve = f"/api/datasets/{repository}/revision/", f"/datasets/{repository}/resolve/{COMMIT}/"
            if self.path in (f"{api}main", f"{api}refs%2Fconvert%2Fparquet", f"{api}{COMMIT}"):
                self._send(200, json.dumps({"id": repository, "sha": COMMIT, "siblings": []}).encode())
            elif self.path == f"{api}broken":
                self._send(500, b"")
            elif self.path.startswith(resolve) and (root / self.path.removeprefix(resolve)).is_file():
                self._send(200, (root / self.path.removeprefix(resolve)).read_bytes())
            else:
                code = "RevisionNotFound" if self.path.startswith(api) else "EntryNotFound"
                self._send(404, b"", code)

        do_HEAD = do_GET  # noqa: N815, the server's own name

        def _send(self, status: int, content: bytes, error: str | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            if error is not None:
                self.send_header("X-Error-Code", error)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Keeps requests off the tests' output."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", requests
        server.shutdown()
