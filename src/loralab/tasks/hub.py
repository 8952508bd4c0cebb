"""Data sets of the Hugging Face hub: a revision's commit, and its files, from the hub or from its local cache."""

import functools
from pathlib import Path

from loralab.errors import UserError
from loralab.hub import HubError, RefusedError, Repository, is_commit
from loralab.tasks.packaged import PACKAGED

__all__ = ["commit", "fetch"]


@functools.cache
def commit(repository: str, revision: str, *, asked_by: str) -> str:
    """The commit (40 hex digits) of a data set's `revision`, resolved once per process so that it cannot change in one.

    It comes from the hub if it answers, else from its local cache; raises UserError if neither has it.
    """
    if is_commit(revision):
        return revision
    data_set = Repository("dataset", repository)
    try:
        return data_set.ask(revision).commit
    except HubError as error:
        _refuse_unknown(repository, revision, error)
        known = data_set.remembered(revision)
        if known is None:
            raise _neither(repository, revision, error, asked_by) from None
        return known


def fetch(repository: str, revision: str, files: tuple[str, ...], *, asked_by: str) -> dict[str, Path]:
    """Local paths of a data set's files at `revision`, in the hub's cache; missing files are downloaded into it."""
    sha = commit(repository, revision, asked_by=asked_by)
    data_set = Repository("dataset", repository)
    paths = {file: data_set.snapshot(sha) / file for file in files}
    missing = [file for file, path in paths.items() if not path.is_file()]
    if not missing:
        return paths
    try:
        data_set.ask(sha)  # fails at once without a network; a download would retry for half a minute
        data_set.download(sha, missing)
    except HubError as error:
        _refuse_unknown(repository, sha, error)
        lacking = f"{error}; the cache lacks {missing[0]} of commit {sha[:8]}"
        raise _neither(repository, revision, lacking, asked_by) from None
    data_set.remember(revision, sha)
    return paths


def _refuse_unknown(repository: str, revision: str, error: HubError) -> None:
    """Raises UserError if the hub answered that it has no such revision, or no such file at that commit."""
    from huggingface_hub import constants

    if isinstance(error, RefusedError) and error.what == "revision":
        raise UserError(f"task.revision: {repository} has no revision '{revision}' at {constants.ENDPOINT}") from None
    if isinstance(error, RefusedError) and error.what == "file":
        raise UserError(f"task.revision: {repository} has no {error.file} at commit {revision[:8]}; try main") from None


def _neither(repository: str, revision: str, trouble: object, asked_by: str) -> UserError:
    from huggingface_hub import constants

    return UserError(
        f"{asked_by}: the data set {repository} (revision {revision}) is neither at the hub ({trouble}) nor complete "
        f"in its cache ({constants.HF_HUB_CACHE}); without a hub: task={', '.join(PACKAGED)} or local"
    )
