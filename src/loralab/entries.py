"""How the entries train and pretrain are started: as a person types it, and in a process of its own."""

import sys

from loralab import places

__all__ = ["process", "typed"]


def typed(entry: str) -> str:
    """`python train.py` in a checkout, which has that file; `loralab train` in any other folder."""
    return f"python {entry}.py" if places.HERE == places.OURS else f"loralab {entry}"


def process(entry: str) -> list[str]:
    """The beginning of a process's arguments; a module of the current folder, such as datasets.py, hides none (-P)."""
    return [sys.executable, "-P", "-m", "loralab", entry]
