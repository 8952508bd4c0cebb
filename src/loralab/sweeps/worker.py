"""The inside of a worker process: it takes jobs from its parent one by one, and outlives neither parent nor hang."""

import contextlib
import faulthandler
import io
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

__all__ = ["Prepare", "serve"]

Tell = Callable[..., None]
Prepare = Callable[[Any, Tell], Callable[[Any], Any]]
"""(what every job shares, how to tell the parent something) -> the function that does a job.

`tell(content)` is a sign of life; `tell(content, silence=600)` says that the next one may take so many seconds.
"""

# A run that was told to stop writes its checkpoint between two steps; one that has not by then never will.
ORPHAN_SECONDS = 120


def serve(connection: Connection, output: Path, prepare: Prepare, shared: Any) -> None:
    """Does jobs until the connection ends. Sends ("ready", None, None), then for each job ("told", content, silence),
    and ("done", result, None) or ("raised", text, None).

    It has a session of its own, so that Ctrl-C in a terminal reaches the parent alone, which says who stops and how.
    What it prints goes to the file `output`; SIGUSR1 makes it write there where each of its threads is.
    """
    os.setsid()
    with output.open("wb") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=True)  # a death would take with it what lies in a buffer
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    threading.Thread(target=_end_with_parent, args=(output.parent,), name="parent", daemon=True).start()
    sending = threading.Lock()  # batches are predicted by several threads, and each may say that it lives

    def send(kind: str, content: Any, silence: float | None = None) -> None:
        with sending, contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the parent died; see its thread
            connection.send((kind, content, silence))

    work = prepare(shared, lambda content, silence=None: send("told", content, silence))
    send("ready", None)
    while True:
        try:
            job = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        os.truncate(1, 0)
        os.lseek(1, 0, os.SEEK_SET)
        try:
            send("done", work(job))
        except Exception:  # a bug of the job's own must not end the worker: the parent is told, and shows it
            send("raised", traceback.format_exc())


def _end_with_parent(folder: Path) -> None:
    """Stops this process, as SIGTERM does, once its parent is dead: a run writes its checkpoint first.

    folder: the pool's own, which nobody else is left to remove.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    shutil.rmtree(folder, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_SECONDS)
    os._exit(1)
