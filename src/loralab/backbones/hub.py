"""Hub id and revision -> local snapshot directory and commit: from the hub if it answers, else from its cache.

Only the needed files are downloaded: config, tokenizer and one set of weights. Every failure is a one-line UserError.
"""

import re
from pathlib import Path

from loralab.backbones.checkpoint import index_of, inspect, needed_files, shard_names
from loralab.errors import UserError
from loralab.hub import Answer, BrokenOffError, NoAnswerError, OfflineError, RefusedError, Repository, is_commit

__all__ = ["snapshot"]


def snapshot(name: str, hub: str, revision: str) -> tuple[Path, str]:
    """The directory that holds `hub` at `revision`, and the commit that it resolves to.

    A commit that is in the cache needs no network. The hub resolves a branch or tag; if the hub cannot
    be reached (or HF_HUB_OFFLINE is set), the commit that the cache last recorded is used.
    """
    if not re.fullmatch(r"(?:[\w.-]+/)?[\w.-]+", hub):
        raise UserError(f"model.hub: {hub!r} is not a hub id; write 'owner/model', e.g. 'FacebookAI/roberta-base'")
    repository = Repository("model", hub)
    if is_commit(revision) and _is_whole(repository.snapshot(revision)):
        return repository.snapshot(revision), revision
    try:
        answer = repository.ask(revision)
        if not _is_whole(repository.snapshot(answer.commit)):
            _download(repository, answer)
    except NoAnswerError as error:
        commit = repository.remembered(revision)
        if commit is None or not _is_whole(repository.snapshot(commit)):
            raise _nowhere(name, repository, revision, error) from error
        return repository.snapshot(commit), commit
    except RefusedError as error:
        raise _refusal(repository, revision, error) from error
    except BrokenOffError as error:
        raise UserError(
            f"model.hub: the download of {error.file} of {hub} broke off ({error.reason}); run the same command again, "
            "finished files are kept"
        ) from error
    repository.remember(revision, answer.commit)
    return repository.snapshot(answer.commit), answer.commit


def _download(repository: Repository, answer: Answer) -> None:
    """Downloads the missing files of a snapshot; the index file lists the shards."""
    names = needed_files(answer.files)
    repository.download(answer.commit, names)
    directory = repository.snapshot(answer.commit)
    index = index_of(names)
    if index is not None:
        repository.download(answer.commit, shard_names(directory / index, "model.hub"))
    inspect(directory, "model.hub")  # raises a one-line UserError for an incomplete repository


def _is_whole(directory: Path) -> bool:
    try:
        inspect(directory, "model.hub")
    except UserError:
        return False
    return True


def _nowhere(name: str, repository: Repository, revision: str, error: NoAnswerError) -> UserError:
    from huggingface_hub import constants

    why = str(error) if isinstance(error, OfflineError) else f"the hub ({constants.ENDPOINT}) does not answer"
    return UserError(
        f"model={name}: {repository.id} at revision {revision!r} is not available: {why} and the cache "
        f"({constants.HF_HUB_CACHE}) has no complete copy; these work without the hub: model=minilm, model=tiny, "
        "model.path=DIR"
    )


def _refusal(repository: Repository, revision: str, error: RefusedError) -> UserError:
    """The hub's refusal in one line."""
    from huggingface_hub import constants

    endpoint, hub = constants.ENDPOINT, repository.id
    if error.what == "gated":
        return UserError(
            f"model.hub: {hub} is gated: accept its licence at {endpoint}/{hub}, then log in with `hf auth login` "
            "(or set HF_TOKEN)"
        )
    if error.what == "revision":
        return UserError(f"model.revision: {hub} has no branch, tag or commit {revision!r}; 'main' is its newest state")
    if error.what == "repository":
        return UserError(
            f"model.hub: {endpoint} has no model {hub!r}, or it is private and you are not logged in (hf auth login)"
        )
    hint = "is your token valid? (hf auth whoami)" if error.status in (401, 403) else "try again later"
    return UserError(f"model.hub: {endpoint} answered {error.status} for {hub}; {hint}")
