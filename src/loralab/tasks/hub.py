"""Data sets of the Hugging Face hub: a revision's commit, and its files, from the hub or from its local cache.

Whether the hub answers is probed first (3 s), since its client retries for much longer before it gives up.
"""

import functools
import re
import socket
import threading
import urllib.parse
import urllib.request
from pathlib import Path

from loralab.errors import UserError
from loralab.files import write_text

__all__ = ["commit", "fetch"]

_PROBE_SECONDS = 3.0
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
    import httpx
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    _probe()
    try:
        info = HfApi(endpoint=constants.ENDPOINT).dataset_info(repository, revision=revision, timeout=_REQUEST_SECONDS)
    except RevisionNotFoundError:
        raise UserError(f"task.revision: {repository} has no revision '{revision}' at {constants.ENDPOINT}") from None
    except RepositoryNotFoundError:
        raise _NoHubError(f"{constants.ENDPOINT} does not have it") from None
    except (HfHubHTTPError, OSError, httpx.HTTPError) as error:
        raise _NoHubError(f"{constants.ENDPOINT} failed: {_first_line(error)}") from None
    assert info.sha is not None
    return info.sha


def _download(repository: str, file: str, sha: str) -> None:
    import httpx
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RemoteEntryNotFoundError

    try:
        hf_hub_download(
            repository, file, repo_type="dataset", revision=sha,
            cache_dir=constants.HF_HUB_CACHE, endpoint=constants.ENDPOINT, etag_timeout=_REQUEST_SECONDS,
        )  # fmt: skip
    except RemoteEntryNotFoundError:
        raise UserError(f"task.revision: {repository} has no {file} at commit {sha[:8]}; try main") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, httpx.HTTPError) as error:
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
    """Raises _NoHubError unless a TCP connection to the hub, or to the proxy that leads to it, opens."""
    from huggingface_hub import constants

    if constants.is_offline_mode():
        raise _NoHubError("HF_HUB_OFFLINE is set")
    url = urllib.parse.urlsplit(constants.ENDPOINT)
    proxies = urllib.request.getproxies()
    if url.hostname is not None and not urllib.request.proxy_bypass(url.hostname):
        proxy = next((proxies[scheme] for scheme in (url.scheme, "all") if scheme in proxies), None)
        url = url if proxy is None else urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    port = url.port or {"https": 443, "http": 80}.get(url.scheme, 1080)  # 1080: socks
    if url.hostname is None or not _opens(url.hostname, port):
        raise _NoHubError(f"no connection to {url.hostname}:{port} in {_PROBE_SECONDS:.0f} s")


def _opens(host: str, port: int) -> bool:
    """Whether a connection opens in time; in a thread, since looking up a name has no time limit of its own."""
    opened = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=_PROBE_SECONDS).close()
        except OSError:
            return
        opened.set()

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    return opened.is_set()


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
