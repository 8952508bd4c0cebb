"""Data sets of the Hugging Face hub: a revision's commit, and its files, from the hub or from its local cache.

Whether the hub answers is probed first (3 s), since its client retries for much longer before it gives up.
"""

import functools
import re
from pathlib import Path

from loralab.errors import UserError
from loralab.files import write_text
from loralab.hub import reachable

__all__ = ["commit", "fetch"]

_REQUEST_SECONDS = 5.0  # of one request for metadata; with the probe it stays under 10 s
_COMMIT = re.compile(r"[0-9a-f]{40}")


@functools.cache
def commit(repository: str, revision: str, *, asked_by: str) -> str:
    """The commit (40 hex digits) that `revision` of a data set names; asked once a process, so it cannot move in one.

    The hub's answer where it can be had, else the one its cache remembers; raises UserError where there is neither.
    """
    if _COMMIT.fullmatch(revision):
        return revision
    try:
        return _ask(repository, revision)
    except _NoHubError as trouble:
        reference = _folder(repository) / "refs" / revision
        if not reference.is_file():
            raise _neither(repository, revision, trouble, asked_by) from None
        return reference.read_text().strip()


def fetch(repository: str, revision: str, files: tuple[str, ...], *, asked_by: str) -> dict[str, Path]:
    """Local paths of a data set's files at `revision`, in the hub's cache; what it lacks is downloaded into it."""
    sha = commit(repository, revision, asked_by=asked_by)
    paths = {file: _folder(repository) / "snapshots" / sha / file for file in files}
    missing = [file for file, path in paths.items() if not path.is_file()]
    if not missing:
        return paths
    try:
        _ask(repository, sha)  # a download asks too, but retries for half a minute where nobody answers
        for file in missing:
            _download(repository, file, sha)
    except _NoHubError as trouble:
        lacking = f"{trouble}; the cache lacks {missing[0]} of commit {sha[:8]}"
        raise _neither(repository, revision, lacking, asked_by) from None
    if not _COMMIT.fullmatch(revision):
        # a download by commit leaves no reference behind, and without one the cache does not know the revision offline
        write_text(_folder(repository) / "refs" / revision, sha)
    return paths


class _NoHubError(Exception):
    """The hub did not answer; the text says how."""


def _ask(repository: str, revision: str) -> str:
    """The hub's commit for `revision`; raises _NoHubError without an answer, UserError for an unknown revision."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError: of the httpx it is built on
        HfHubHTTPError,
        HTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    _probe()
    try:
        info = HfApi(endpoint=constants.ENDPOINT).dataset_info(repository, revision=revision, timeout=_REQUEST_SECONDS)
    except RevisionNotFoundError:
        raise UserError(f"task.revision: {repository} has no revision '{revision}' at {constants.ENDPOINT}") from None
    except RepositoryNotFoundError:
        raise _NoHubError(f"{constants.ENDPOINT} does not have it") from None
    except (HfHubHTTPError, OSError, HTTPError) as error:
        raise _NoHubError(f"{constants.ENDPOINT} failed: {_first_line(error)}") from None
    assert info.sha is not None
    return info.sha


def _download(repository: str, file: str, sha: str) -> None:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError: of the httpx it is built on
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
        RemoteEntryNotFoundError,
    )

    try:
        hf_hub_download(
            repository, file, repo_type="dataset", revision=sha,
            cache_dir=constants.HF_HUB_CACHE, endpoint=constants.ENDPOINT, etag_timeout=_REQUEST_SECONDS,
        )  # fmt: skip
    except RemoteEntryNotFoundError:
        raise UserError(f"task.revision: {repository} has no {file} at commit {sha[:8]}; try main") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, HTTPError) as error:
        raise _NoHubError(f"the download failed: {_first_line(error)}") from None


def _folder(repository: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"datasets--{repository.replace('/', '--')}"


def _neither(repository: str, revision: str, trouble: object, asked_by: str) -> UserError:
    from huggingface_hub import constants

    return UserError(
        f"{asked_by}: the data set {repository} (revision {revision}) is neither at the hub ({trouble}) nor whole in "
        f"its cache ({constants.HF_HUB_CACHE}); without a hub: task=rotten_tomatoes, imdb, trec, sms_spam, "
        "snippets or local"
    )


def _probe() -> None:
    """Raises _NoHubError unless a connection to the hub opens."""
    from huggingface_hub import constants

    if constants.is_offline_mode():
        raise _NoHubError("HF_HUB_OFFLINE is set")
    if not reachable(constants.ENDPOINT):
        raise _NoHubError(f"no connection to {constants.ENDPOINT}")


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
