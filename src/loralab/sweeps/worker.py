"""The main loop of a worker process: it takes jobs from its parent, and ends when the parent does."""

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
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, BinaryIO

from loralab.streams import prepare as prepare_streams

__all__ = ["Ended", "Prepare", "serve"]

Send = Callable[..., None]
Prepare = Callable[[Any, Send], Callable[[Any], Any]]
"""(what every job shares, how to send the parent a message) -> the function that does a job.

`send(content)` shows that the worker is alive; `send(content, silence=600)` announces a pause of up to 600 seconds.
"""


@dataclass(frozen=True)
class Ended:
    """Sent about a job of a pack: it has ended, with this result, while others of the pack may go on."""

    result: Any


# A run writes its checkpoint between two steps once its parent has died; one that needs longer is stuck.
ORPHAN_SECONDS = 120


def serve(connection: Connection, output: Path, prepare: Prepare, shared: Any) -> None:
    """Runs jobs until the connection ends. Sends ("ready", None, None), then for each job ("message", content,
    silence), and ("done", result, None) or ("raised", text, None).

    It calls setsid, so that Ctrl-C in a terminal reaches the parent alone, which decides who stops and how. Its output
    goes to the file `output`; on SIGUSR1 it writes the stack of each thread there.
    """
    os.setsid()
    with _opened(output) as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    prepare_streams()
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=True)  # what is buffered is lost if the process dies
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    threading.Thread(target=_end_with_parent, args=(output.parent,), name="parent", daemon=True).start()
    sending = threading.Lock()  # several threads predict batches, and each may send

    def send(kind: str, content: Any, silence: float | None = None) -> None:
        with sending, contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the parent died: _end_with_parent
            connection.send((kind, content, silence))

    work = prepare(shared, lambda content, silence=None: send("message", content, silence))
    send("ready", None)
    while True:
        try:
            job = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        with contextlib.suppress(OSError):  # os.devnull has no length
            os.truncate(1, 0)
            os.lseek(1, 0, os.SEEK_SET)
        try:
            send("done", work(job))
        except Exception:  # a bug in a job must not end the worker; the parent shows it
            send("raised", traceback.format_exc())


def _opened(output: Path) -> BinaryIO:
    """The file, or os.devnull where its folder is gone: what a worker prints is of use only if it dies."""
    try:
        return output.open("wb")
    except OSError:
        return Path(os.devnull).open("wb")


def _end_with_parent(folder: Path) -> None:
    """Stops this process, as SIGTERM does, once its parent is dead: a run writes its checkpoint first.

    folder: the pool's, removed here since the parent cannot.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    shutil.rmtree(folder, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_SECONDS)
    os._exit(1)
