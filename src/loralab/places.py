"""Where conf/, sweeps/ and analysis/ are read, and where results are written.

Two folders have this layout: the one that comes with loralab (a checkout, or what the wheel ships) and the current one.
A file of the current folder is found first. Results are written to the current folder alone.
"""

from pathlib import Path

__all__ = ["CODE", "HERE", "OURS", "found"]

CODE = Path(__file__).resolve().parent
"""The package's folder."""


_SHIPPED = CODE / "shipped"  # in a wheel (pyproject.toml)


def _here() -> Path:
    try:
        current = Path.cwd()
    except OSError:  # it was removed; what is read or written there fails with its own line
        return Path()
    return OURS if OURS != _SHIPPED and current.is_relative_to(OURS) else current


OURS = _SHIPPED if _SHIPPED.is_dir() else CODE.parents[1]
"""The folder that comes with loralab."""
HERE = _here()
"""The folder in which this process was started; anywhere inside a checkout, the checkout."""


def found(path: Path) -> Path:
    """The file itself if it is there; else the file at the same place of OURS, if `path` is in HERE."""
    if path.exists() or not path.is_relative_to(HERE):
        return path
    return OURS / path.relative_to(HERE)
