"""Where the home directory cannot be written to, libraries silently keep their caches in a temporary folder.

Read from matplotlib 3.10.7 and 3.11.2 and wandb 0.31.0, which warn, or print a log, where theirs cannot be made.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

__all__ = ["use_temporary_caches"]

_CACHES = {"MPLCONFIGDIR": "matplotlib", "WANDB_CACHE_DIR": "wandb"}


def use_temporary_caches() -> None:
    """Sets a temporary folder for caches where the home is not writable; folders that are set already stay.

    Call before matplotlib and wandb are imported. The folder is removed when this process ends.
    """
    if _takes_files():
        return
    folder = Path(tempfile.mkdtemp(prefix="loralab-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for variable, name in _CACHES.items():
        (folder / name).mkdir()
        os.environ.setdefault(variable, str(folder / name))


def _takes_files() -> bool:
    try:
        for variable, name in (("XDG_CONFIG_HOME", ".config"), ("XDG_CACHE_HOME", ".cache")):
            place = Path(os.environ.get(variable) or Path.home() / name)
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                pass
    except (OSError, RuntimeError):  # no home at all is a RuntimeError
        return False
    return True
