"""Imports of large libraries in less time: the garbage collector is kept from walking what they make.

What an import makes stays. Importing torch and one model of transformers takes 2.8 CPU seconds, .6 of them in a
collector that finds nothing.
"""

import contextlib
import gc
from collections.abc import Iterator

__all__ = ["with_rare_collection", "without_collection"]

# New objects between two collections; Python's own is 700, or 2,000.
RARE = 100_000


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Inside, the garbage collector is off: for import statements.

    What was made counts as old afterwards (freeze and unfreeze move it there), or the next collection would walk all of
    it, which is half of what is won. Where a part is frozen already it stays frozen.
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
    """Inside, the garbage collector works every 100,000 objects: for a whole command, which imports here and there."""
    was = gc.get_threshold()
    gc.set_threshold(RARE, *was[1:])
    try:
        yield
    finally:
        gc.set_threshold(*was)
