"""The files of a run's trained weights, by the names of the method's format: regular files inside the run, no links.

A link may lead anywhere: to a file that is not the run's, which an export would then give away.
"""

import stat
from pathlib import Path

from loralab.errors import UserError
from loralab.methods.registry import Method
from loralab.store.run_directory import RunDirectory

__all__ = ["regular", "trained_files"]


def trained_files(run: RunDirectory, method: Method) -> dict[str, Path]:
    """Name within the method's folder -> file. Other files that lie there are left out.

    Raises UserError where one is missing, or is or lies behind a link.
    """
    found = {}
    for pattern in method.files:
        matches = sorted((run.path / method.folder).glob(pattern))
        if not matches:
            raise UserError(f"{run.path.name}: has no {method.folder}/{pattern}; it is damaged, so train it again")
        for file in matches:
            name = str(file.relative_to(run.path / method.folder))
            found[name] = regular(run, f"{method.folder}/{name}")
    return found


def regular(run: RunDirectory, name: str) -> Path:
    """The file `name` of the run; raises UserError unless it is a regular file, in folders that are no links."""
    path = run.path
    for part in Path(name).parts:
        path /= part
        try:
            mode = path.lstat().st_mode
        except OSError as error:
            raise UserError(f"{run.path.name}: {name} cannot be read ({error.strerror})") from error
        if stat.S_ISLNK(mode):
            raise UserError(
                f"{run.path.name}: {path.relative_to(run.path)} is a link, which is not followed; put the file itself "
                "there"
            )
    if not stat.S_ISREG(mode):
        raise UserError(f"{run.path.name}: {name} is not a regular file")
    return path
