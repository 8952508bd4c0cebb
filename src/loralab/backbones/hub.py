"""Hub id and revision -> local snapshot directory and commit: from the hub where it answers, else from its cache.

Only what is needed is downloaded: config, tokenizer, and one set of weights. Every way of failing is one
line, within 10 seconds: huggingface_hub's own retries take the better part of a minute without a network.
"""

import contextlib
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from logging import ERROR
from pathlib import Path

from loralab.backbones.checkpoint import index_of, inspect, needed_files, read_json
from loralab.errors import UserError
from loralab.files import write_text
from loralab.hub import reachable

__all__ = ["snapshot"]

_ANSWER_SECONDS = 3.0  # each for connecting and for answering; with the probe, under 10 in all


def snapshot(name: str, hub: str, revision: str) -> tuple[Path, str]:
    """The directory that holds `hub` at `revision`, and the commit that it resolved to.

    A commit that is in the cache needs no network. A branch or tag is asked of the hub; where that
    cannot be reached (or HF_HUB_OFFLINE is set), what the cache last knew it as is used.
    """
    from huggingface_hub import constants

    if not re.fullmatch(r"(?:[\w.-]+/)?[\w.-]+", hub):
        raise UserError(f"model.hub: {hub!r} is no hub id; it looks like 'owner/model', e.g. 'FacebookAI/roberta-base'")
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        cached = _cached(hub, revision)
        if cached is not None:
            return cached
    if not constants.is_offline_mode():
        if reachable(constants.ENDPOINT):
            answer = _ask(hub, revision)
            if answer is not None:
                commit, files = answer
                return _download(hub, commit, revision, files), commit
        why = f"the hub ({constants.ENDPOINT}) does not answer"
    else:
        why = "HF_HUB_OFFLINE is set"
    cached = _cached(hub, revision)
    if cached is not None:
        return cached
    raise UserError(
        f"model={name}: {hub} at revision {revision!r} cannot be had: {why} and the cache ({constants.HF_HUB_CACHE}) "
        "does not hold it whole; without a hub these work: model=minilm, model=tiny, model.path=DIR"
    )


def _ask(hub: str, revision: str) -> tuple[str, tuple[str, ...]] | None:
    """The commit of `revision` and the repository's file names; None where the hub gives no usable answer."""
    from huggingface_hub import HfApi, errors
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of the httpx it is built on

    with _hub_errors(hub, revision):
        try:
            info = HfApi().model_info(hub, revision=revision, timeout=_ANSWER_SECONDS)
        except errors.HfHubHTTPError as error:
            if error.response.status_code in (401, 403, 404):
                raise
            return None
        except (OSError, ValueError, TypeError, HTTPError):  # TypeError: JSON that is no model's
            return None
    if info.sha is None or info.siblings is None:
        return None
    return info.sha, tuple(sibling.rfilename for sibling in info.siblings)


def _download(hub: str, commit: str, revision: str, present: Sequence[str]) -> Path:
    """Fetches what is missing of the snapshot, and notes in the cache what `revision` is, as the hub's library does."""
    from huggingface_hub import constants

    root = Path(constants.HF_HUB_CACHE, _folder(hub))
    directory = root / "snapshots" / commit
    if _cached(hub, commit) is None:
        names = needed_files(present)
        index = index_of(names)
        with _hub_errors(hub, revision), _plain_output():
            _fetch(hub, commit, names)
            if index is not None:
                shards = read_json(directory / index, "model.hub")["weight_map"].values()
                _fetch(hub, commit, sorted(set(shards)))
        inspect(directory, "model.hub")  # says in one line what the repository lacks
    if revision != commit:
        write_text(root / "refs" / revision, commit)
    return directory


def _fetch(hub: str, commit: str, names: Iterable[str]) -> None:
    from huggingface_hub import errors, hf_hub_download
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of the httpx it is built on

    for name in names:
        try:
            hf_hub_download(hub, name, revision=commit)
        except errors.HfHubHTTPError:
            raise
        except (OSError, ValueError, RuntimeError, HTTPError, errors.XetDownloadError) as error:
            text = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"model.hub: the download of {name} of {hub} broke off ({text}); run the same command again, "
                "finished files are kept"
            ) from error


def _cached(hub: str, revision: str) -> tuple[Path, str] | None:
    """The snapshot of `revision` (branch, tag or commit) in the hub's cache, if it is there and whole."""
    from huggingface_hub import constants

    root = Path(constants.HF_HUB_CACHE, _folder(hub))
    reference = root / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    directory = root / "snapshots" / commit
    if not directory.is_dir():
        return None
    try:
        inspect(directory, "model.hub")
    except UserError:
        return None
    return directory, commit


def _folder(hub: str) -> str:
    return "models--" + hub.replace("/", "--")


@contextlib.contextmanager
def _hub_errors(hub: str, revision: str) -> Iterator[None]:
    """Turns the hub's refusals into one line each."""
    from huggingface_hub import constants, errors

    endpoint = constants.ENDPOINT
    try:
        yield
    except errors.GatedRepoError as error:
        raise UserError(
            f"model.hub: {hub} is gated: accept its licence at {endpoint}/{hub}, then log in with `hf auth login` "
            "(or set HF_TOKEN)"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(
            f"model.revision: {hub} has no branch, tag or commit {revision!r}; 'main' is its newest state"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"model.hub: {endpoint} has no model {hub!r}, or it is private and you are not logged in (hf auth login)"
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        hint = "is your token valid? (hf auth whoami)" if status in (401, 403) else "try again later"
        raise UserError(f"model.hub: {endpoint} answered {status} for {hub}; {hint}") from error


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
