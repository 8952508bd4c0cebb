"""The client of the Hugging Face hub: resolves revisions, downloads files by commit, and reads the hub's cache.

Every failure takes less than 10 seconds. Without a network the library retries for most of a minute, so a connection is
tried first. Errors describe what happened; the caller adds the config key.
"""

import contextlib
import re
import socket
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from logging import ERROR
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from loralab.files import write_text

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

__all__ = [
    "Answer",
    "BrokenOffError",
    "HubError",
    "NoAnswerError",
    "OfflineError",
    "RefusedError",
    "Repository",
    "is_commit",
    "reachable",
]

_PROBE_SECONDS = 3.0
_ANSWER_SECONDS = 5.0  # per request; together with the probe under 10
_COMMIT = re.compile(r"[0-9a-f]{40}")

Refusal = Literal["gated", "revision", "repository", "file", "other"]


class HubError(Exception):
    """A request to the hub failed; the text gives the reason in one line."""


class NoAnswerError(HubError):
    """No connection, or no usable answer; the cache may still suffice."""


class OfflineError(NoAnswerError):
    """HF_HUB_OFFLINE is set."""


class BrokenOffError(HubError):
    """The download of `file` ended early, for `reason`; the files before it are in the cache."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"the download failed: {reason}")
        self.file, self.reason = file, reason


class RefusedError(HubError):
    """The hub answered with an HTTP error; what: the kind of refusal, file: the requested file, if any."""

    def __init__(self, text: str, what: Refusal, status: int, file: str | None = None) -> None:
        super().__init__(text)
        self.what, self.status, self.file = what, status, file


class Answer(NamedTuple):
    """The commit (40 hex digits) of a revision, and the names of the repository's files at that commit."""

    commit: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class Repository:
    """A model or a data set of the hub, with its folder in the hub's cache."""

    kind: Literal["model", "dataset"]
    id: str

    def ask(self, revision: str) -> Answer:
        """The hub's answer for a branch, tag or commit; raises NoAnswerError or RefusedError."""
        from huggingface_hub import HfApi, constants
        from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError: of the httpx it is built on
            HfHubHTTPError,
            HTTPError,
            RepositoryNotFoundError,
        )

        if constants.is_offline_mode():
            raise OfflineError("HF_HUB_OFFLINE is set")
        endpoint = constants.ENDPOINT
        if not reachable(endpoint):
            raise NoAnswerError(f"no connection to {endpoint}")
        api = HfApi(endpoint=endpoint)
        info_of = api.model_info if self.kind == "model" else api.dataset_info
        try:
            info = info_of(self.id, revision=revision, timeout=_ANSWER_SECONDS)
        except RepositoryNotFoundError as error:
            raise _refused(error, f"{endpoint} does not have it") from error
        except HfHubHTTPError as error:
            text = f"{endpoint} failed: {_first_line(error)}"
            if error.response.status_code in (401, 403, 404):
                raise _refused(error, text) from error
            raise NoAnswerError(text) from error
        except (OSError, ValueError, TypeError, HTTPError) as error:  # TypeError: unexpected JSON
            raise NoAnswerError(f"{endpoint} failed: {_first_line(error)}") from error
        if info.sha is None or info.siblings is None:
            raise NoAnswerError(f"{endpoint} failed: its answer has no commit or no files")
        return Answer(info.sha, tuple(sibling.rfilename for sibling in info.siblings))

    def download(self, commit: str, files: Iterable[str]) -> None:
        """Downloads the files that the cache lacks, at a commit; raises BrokenOffError or RefusedError."""
        from huggingface_hub import constants, hf_hub_download
        from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError: of the httpx it is built on
            HfHubHTTPError,
            HTTPError,
            XetDownloadError,
        )

        with _plain_output():
            for file in files:
                try:
                    hf_hub_download(
                        self.id, file, repo_type=self.kind, revision=commit,
                        cache_dir=constants.HF_HUB_CACHE, endpoint=constants.ENDPOINT,
                    )  # fmt: skip
                except HfHubHTTPError as error:
                    raise _refused(error, f"the download failed: {_first_line(error)}", file) from error
                except (OSError, ValueError, RuntimeError, HTTPError, XetDownloadError) as error:
                    raise BrokenOffError(file, _first_line(error)) from error

    def snapshot(self, commit: str) -> Path:
        """The folder of a commit in the cache, which may be missing or incomplete; the caller checks its files.

        snapshot_download(local_files_only=True) cannot check it: it returns any existing folder, or, where a listing of
        the repository is cached, requires every file of the repository.
        """
        return self._folder() / "snapshots" / commit

    def remembered(self, revision: str) -> str | None:
        """The last known commit of a branch or tag, from the cache; a commit is returned unchanged."""
        if is_commit(revision):
            return revision
        reference = self._folder() / "refs" / revision
        return reference.read_text().strip() if reference.is_file() else None

    def remember(self, revision: str, commit: str) -> None:
        """Stores a branch's or tag's commit in the cache for offline use; a download by commit does not store it."""
        if not is_commit(revision):
            write_text(self._folder() / "refs" / revision, commit)

    def _folder(self) -> Path:
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE) / f"{self.kind}s--{self.id.replace('/', '--')}"


def is_commit(revision: str) -> bool:
    """Whether a revision is a full commit hash, which never changes."""
    return _COMMIT.fullmatch(revision) is not None


def reachable(endpoint: str) -> bool:
    """Whether a TCP connection to the endpoint, or to its proxy, opens within 3 seconds."""
    url = urllib.parse.urlsplit(endpoint)
    proxies = urllib.request.getproxies()
    if not urllib.request.proxy_bypass(url.hostname or ""):
        proxy = next((proxies[scheme] for scheme in (url.scheme, "all") if scheme in proxies), None)
        if proxy is not None:
            url = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    port = url.port or {"https": 443, "http": 80}.get(url.scheme, 1080)  # 1080: socks
    opened = threading.Event()

    def knock() -> None:
        with contextlib.suppress(OSError), socket.create_connection((url.hostname, port), timeout=_PROBE_SECONDS):
            opened.set()

    # Name resolution has no timeout, hence the thread, which may outlive this call.
    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    return opened.is_set()


def _refused(error: "HfHubHTTPError", text: str, file: str | None = None) -> RefusedError:
    from huggingface_hub import errors

    kinds: dict[type[Exception], Refusal] = {
        errors.GatedRepoError: "gated",  # before "repository", its base class
        errors.RevisionNotFoundError: "revision",
        errors.RepositoryNotFoundError: "repository",
        errors.RemoteEntryNotFoundError: "file",
    }
    what: Refusal = next((what for kind, what in kinds.items() if isinstance(error, kind)), "other")
    return RefusedError(text, what, error.response.status_code, file)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


@contextlib.contextmanager
def _plain_output() -> Iterator[None]:
    """Inside, hides the hub library's warnings, and shows its progress bars on a terminal only."""
    from huggingface_hub.utils import logging
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    level, bars = logging.get_verbosity(), not are_progress_bars_disabled()
    logging.set_verbosity(ERROR)
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            enable_progress_bars()
