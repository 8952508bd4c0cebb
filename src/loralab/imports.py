"""Faster imports of large libraries, by disabling or reducing garbage collection.

Objects made by an import stay alive, so collecting them is wasted work: importing torch and one model of transformers
takes 2.8 CPU seconds, .6 of them in the collector.
"""

import contextlib
import gc
from collections.abc import Iterator

__all__ = ["with_rare_collection", "without_collection"]

# New objects between two collections; Python's default is 700, or 2,000.
RARE = 100_000


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Disables the garbage collector inside; for import statements.

    Afterwards the new objects count as old (freeze and unfreeze move them), since the next collection would walk all of
    them, which is half of the gain. Objects that are frozen already stay frozen.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            if gc.get_freeze_count() == 0:
                gc.freeze()
                gc.unfreeze()
            gc.enable()


@contextlib.contextmanager
def with_rare_collection() -> Iterator[None]:
    """Inside, the garbage collector runs every 100,000 new objects; for a whole command, with imports throughout."""
    was = gc.get_threshold()
    gc.set_threshold(RARE, *was[1:])
    try:
        yield
    finally:
        gc.set_threshold(*was)
