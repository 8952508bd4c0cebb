"""Tasks: name -> texts and labels -> fixed splits -> token ids -> padded batches, and the metrics that score them.

`identity` says what the data is without reading it into memory, `read` reads it, `tokenise` and `collate` make batches.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loralab.errors import UserError
from loralab.tasks import glue, local, packaged
from loralab.tasks.metrics import METRICS, better, choose, score
from loralab.tasks.raw import Kind, RawTask, Texts, subset
from loralab.tasks.tokenised import Split, collate, tokenise

__all__ = [
    "METRICS", "NAMES", "Kind", "RawTask", "Split", "Texts",
    "better", "choose", "collate", "identity", "read", "score", "tokenise",
]  # fmt: skip

NAMES: tuple[str, ...] = (*packaged.PACKAGED, *glue.GLUE, "local")


def identity(
    name: str,
    *,
    files: Mapping[str, str | None],
    text: Sequence[str] | None,
    label: str | None,
    kind: Kind | None,
    revision: str | None,
    cache: Path | None,
) -> dict[str, str]:
    """What determines the task's data: fingerprints of its files, or the hub commit. Imports nothing heavy.

    With the task's own config values this is all that `read` depends on. `cache` is a directory for file digests.
    """
    _check(name, revision, files=files, text=text, label=label, kind=kind)
    if name in packaged.PACKAGED:
        return packaged.identity(name, cache=cache)
    if name in glue.GLUE:
        assert revision is not None
        return glue.identity(name, revision)
    return local.identity(files, cache=cache)


def read(
    name: str,
    *,
    files: Mapping[str, str | None],
    text: Sequence[str] | None,
    label: str | None,
    kind: Kind | None,
    validation_share: float | None,
    test_share: float | None,
    split_seed: int | None,
    train_rows: int | None,
    eval_rows: int | None,
    revision: str | None,
) -> RawTask:
    """The task's texts and labels in their splits.

    `train_rows` keeps a fixed random part of the training split, `eval_rows` of each of the others.

    `files` (train, validation, test), `text`, `label`, `kind`, the shares and `split_seed` are for `local` alone: the
    other tasks come with their splits, and a value there raises UserError. `revision` is for GLUE.
    """
    _check(
        name, revision, files=files, text=text, label=label, kind=kind,
        validation_share=validation_share, test_share=test_share, split_seed=split_seed,
    )  # fmt: skip
    if name in packaged.PACKAGED:
        raw = packaged.read(name)
    elif name in glue.GLUE:
        assert revision is not None
        raw = glue.read(name, revision)
    else:
        raw = local.read(
            files=files, text=text, label=label, kind=kind,
            validation_share=validation_share, test_share=test_share, split_seed=split_seed,
        )  # fmt: skip
    return subset(raw, train_rows, eval_rows)


def _check(name: str, revision: str | None, *, files: Mapping[str, str | None], **settings: Any) -> None:
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise UserError(f"task.name: got '{name}'; allowed: {', '.join(NAMES)}{hint}")
    given = {f"files.{part}": file for part, file in files.items()} | settings
    if name in glue.GLUE and revision is None:
        raise UserError(f"task.revision: got null; {name} comes from the hub, so name a branch or a commit, e.g. main")
    if name not in glue.GLUE and revision is not None:
        raise UserError(f"task.revision: got '{revision}', but {name} does not come from the hub; leave it null")
    if name != "local":
        for key, value in given.items():
            if value is not None and value != []:
                raise UserError(
                    f"task.{key}: got {value}, but {name} has its own data and splits; "
                    f"leave it null, or use task=local for your own files"
                )
