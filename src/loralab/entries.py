"""How the entries train and pretrain are started: as a person types it, and in a process of its own."""

import sys
from pathlib import Path

from loralab import places

__all__ = ["process", "typed"]


def typed(entry: str) -> str:
    """`python train.py` in a checkout, which has that file; `loralab train` elsewhere, and to who typed `loralab`."""
    program = Path(sys.argv[0])
    by_name = program.stem == "loralab" or (program.stem, program.parent.name) == ("__main__", "loralab")
    return f"python {entry}.py" if places.HERE == places.OURS and not by_name else f"loralab {entry}"


def process(entry: str) -> list[str]:
    """The beginning of a process's arguments; a module of the current folder, such as datasets.py, hides none (-P)."""
    return [sys.executable, "-P", "-m", "loralab", entry]
