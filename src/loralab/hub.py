"""The one client of the Hugging Face hub: what a revision is, files by commit, and what the hub's cache holds.

Every way of failing takes less than 10 seconds: the library's own retries take most of a minute without a network, so a
connection is tried first. Errors say what happened; which config key is at fault is for the caller to say.
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
_ANSWER_SECONDS = 5.0  # of one request; with the probe, under 10 in all
_COMMIT = re.compile(r"[0-9a-f]{40}")

Refusal = Literal["gated", "revision", "repository", "file", "other"]


class HubError(Exception):
    """The hub did not give what was asked for; the text says why, in one line."""


class NoAnswerError(HubError):
    """No connection, or no usable answer; what the cache holds may do."""


class OfflineError(NoAnswerError):
    """HF_HUB_OFFLINE is set."""


class BrokenOffError(HubError):
    """The download of `file` ended early, for `reason`; the files before it are in the cache."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"the download failed: {reason}")
        self.file, self.reason = file, reason


class RefusedError(HubError):
    """The hub answered with an HTTP status: what it refuses or does not have, and the file if one was wanted."""

    def __init__(self, text: str, what: Refusal, status: int, file: str | None = None) -> None:
        super().__init__(text)
        self.what, self.status, self.file = what, status, file


class Answer(NamedTuple):
    """What a revision is: its commit (40 hex digits), and the names of the repository's files at it."""

    commit: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class Repository:
    """A model or a data set of the hub by its id, and its folder in the hub's cache."""

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
        except (OSError, ValueError, TypeError, HTTPError) as error:  # TypeError: JSON that describes no repository
            raise NoAnswerError(f"{endpoint} failed: {_first_line(error)}") from error
        if info.sha is None or info.siblings is None:
            raise NoAnswerError(f"{endpoint} failed: its answer has no commit or no files")
        return Answer(info.sha, tuple(sibling.rfilename for sibling in info.siblings))

    def download(self, commit: str, files: Iterable[str]) -> None:
        """Fetches files at a commit into the cache, but for those it holds; raises BrokenOffError or RefusedError."""
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
        """The folder of a commit in the cache, whether or not it is there, or whole.

        Whether it has what is needed is for the caller to see. snapshot_download(local_files_only=True) does not say:
        it gives any folder that is there, or, where a listing of the repository is cached, wants every file of it.
        """
        return self._folder() / "snapshots" / commit

    def remembered(self, revision: str) -> str | None:
        """The commit that the cache last knew a branch or tag as; a commit is itself."""
        if is_commit(revision):
            return revision
        reference = self._folder() / "refs" / revision
        return reference.read_text().strip() if reference.is_file() else None

    def remember(self, revision: str, commit: str) -> None:
        """Notes a branch's or tag's commit in the cache; a download by commit does not, so it would be lost offline."""
        if not is_commit(revision):
            write_text(self._folder() / "refs" / revision, commit)

    def _folder(self) -> Path:
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE) / f"{self.kind}s--{self.id.replace('/', '--')}"


def is_commit(revision: str) -> bool:
    """Whether a revision is a whole commit hash, which never moves."""
    return _COMMIT.fullmatch(revision) is not None


def reachable(endpoint: str) -> bool:
    """Whether a TCP connection to the endpoint, or to the proxy that leads to it, opens within 3 seconds."""
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

    # Looking up a name knows no timeout of its own, hence the thread, which may outlive this call.
    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    return opened.is_set()


def _refused(error: "HfHubHTTPError", text: str, file: str | None = None) -> RefusedError:
    from huggingface_hub import errors

    kinds: dict[type[Exception], Refusal] = {
        errors.GatedRepoError: "gated",  # before "repository": it is one of these too
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
    """No warnings of the hub's library; its progress bars on a terminal only."""
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
