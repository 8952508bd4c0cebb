"""`loralab --version`: the version, the code's fingerprint and commit, and where it is installed."""

from loralab import __version__, places
from loralab.store.provenance import code_fingerprint, commit

__all__ = ["version"]


def version() -> str:
    """One line; the fingerprint (`code_fingerprint`) is one for the same code in a checkout and in a wheel."""
    origin = commit()
    return f"loralab {__version__}, code {code_fingerprint()} ({origin or 'no git checkout'}), in {places.CODE}"
