"""Imports of large libraries, made in less time."""

import contextlib
import gc
from collections.abc import Iterator

__all__ = ["without_collection"]


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Inside, the garbage collector is off.

    What an import makes stays, and the collector would walk it again and again: it took .6 of the 2.8 CPU seconds of
    importing torch and a model of transformers.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
