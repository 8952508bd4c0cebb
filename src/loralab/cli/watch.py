"""`loralab watch`: a page that shows a sweep while it trains, until Ctrl-C."""

import argparse
import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from loralab.errors import UserError
from loralab.text import printed

if TYPE_CHECKING:
    from loralab.inspect.watch_server import WatchServer

__all__ = ["EXAMPLES", "add_options", "serve", "watch"]

LISTEN_SECONDS = 0.2  # between two looks for an interrupt

EXAMPLES = (
    "loralab watch                         the sweep that trains now, or the next one that begins",
    "loralab watch lr_grid                 the latest one whose id begins so",
    "ssh -L 8317:localhost:8317 MACHINE    then the same address here shows a sweep there",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `loralab watch`."""
    meaning = "a sweep or a tuning session by its id, or a beginning of it (default: last)"
    parser.add_argument("sweep", metavar="last|ID", nargs="?", default="last", help=meaning)
    meaning = "of the page (default: 8317, or the next one that is free; 0: any)"
    parser.add_argument("--port", metavar="N", help=meaning)


def watch(given: argparse.Namespace) -> int:
    """Serves the page; returns the exit status after Ctrl-C."""
    from loralab.inspect.watch_server import open_server
    from loralab.inspect.watched_sweep import newest

    store, port = given.store.absolute(), _port(given.port)
    wanted = None if given.sweep == "last" else newest(store, given.sweep)
    name = newest(store) if wanted is None else wanted
    with open_server(store, functools.partial(_chosen, store, wanted), port=port) as server:
        print(printed([f"{name or f'no sweep yet in {store}: it appears once it begins'}", server.url]), flush=True)
        print("Ctrl-C ends the page, not the sweep", flush=True)
        serve(server)
    print("\r" * sys.stdout.isatty() + "the page is closed; a sweep that trains goes on", flush=True)  # over ^C
    return 0


def serve(server: "WatchServer") -> None:
    """Answers until Ctrl-C or SIGTERM."""
    from loralab.training.signals import Interrupts

    server.timeout = LISTEN_SECONDS
    with Interrupts() as interrupts:
        while interrupts.noted is None:
            server.handle_request()
    server.ending.set()


def _chosen(store: Path, wanted: str | None) -> str | None:
    from loralab.inspect.watched_sweep import newest

    return newest(store) if wanted is None else wanted


def _port(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or int(text) > 65535:
        raise UserError(f"--port: got {text}; it must be a whole number, 0 to 65535")
    return int(text)
