"""Tasks: name -> texts and labels, or pairs of texts -> fixed splits -> token ids -> padded batches, and their metrics.

`identity` says what the data is without reading it into memory, `read` reads it, `tokenise` and `collate` make batches
(of pairs: `tokenise_pairs`, `collate_training` and `collate_contexts`).
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loralab.errors import UserError
from loralab.tasks import glue, hub_generation, local_labels, local_pairs, packaged, sql
from loralab.tasks.metrics import METRICS, better, choose, score
from loralab.tasks.splits import Kind, Pairs, RawTask, Texts, subset
from loralab.tasks.text_metrics import correct, score_texts
from loralab.tasks.tokenise import Split, collate, tokenise
from loralab.tasks.tokenise_pairs import PairSplit, collate_contexts, collate_training, tokenise_pairs

__all__ = [
    "GENERATION", "METRICS", "NAMES", "Kind", "PairSplit", "Pairs", "RawTask", "Split", "Texts",
    "better", "choose", "collate", "collate_contexts", "collate_training", "correct", "identity", "read", "score",
    "score_texts", "tokenise", "tokenise_pairs",
]  # fmt: skip

NAMES: tuple[str, ...] = (*packaged.PACKAGED, "sql", *glue.GLUE, *hub_generation.HUB_PAIRS, "local", "pairs")
GENERATION: tuple[str, ...] = ("sql", *hub_generation.HUB_PAIRS, "pairs")  # those whose splits are Pairs
_OF_THE_HUB = {*glue.GLUE, *hub_generation.HUB_PAIRS}
_OF_FILES = {"local", "pairs"}


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
    if name in _OF_THE_HUB:
        assert revision is not None
        return glue.identity(name, revision) if name in glue.GLUE else hub_generation.identity(name, revision)
    if name == "sql":
        return sql.identity()
    return local_pairs.identity(files, cache=cache) if name == "pairs" else local_labels.identity(files, cache=cache)


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
) -> RawTask[Any]:
    """The task's texts and labels (generation: its pairs) in their splits.

    `train_rows` keeps a fixed random part of the training split, `eval_rows` of each of the others.

    `files` (train, validation, test), `text`, `label`, `kind`, the shares and `split_seed` are for `local` and `pairs`:
    the other tasks come with their splits, and a value there raises UserError (`sql` is made from `split_seed`).
    `revision` is for tasks of the hub.
    """
    _check(
        name, revision, files=files, text=text, label=label, kind=kind,
        validation_share=validation_share, test_share=test_share, split_seed=split_seed,
    )  # fmt: skip
    raw: RawTask[Any]
    if name in packaged.PACKAGED:
        raw = packaged.read(name)
    elif name in _OF_THE_HUB:
        assert revision is not None
        raw = glue.read(name, revision) if name in glue.GLUE else hub_generation.read(name, revision)
    elif name == "sql":
        raw = sql.read(split_seed)
    else:
        own: dict[str, Any] = {"files": files, "text": text, "label": label, "kind": kind, "split_seed": split_seed}
        own |= {"validation_share": validation_share, "test_share": test_share}
        raw = local_pairs.read(**own) if name == "pairs" else local_labels.read(**own)
    return subset(raw, train_rows, eval_rows)


def _check(name: str, revision: str | None, *, files: Mapping[str, str | None], **settings: Any) -> None:
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise UserError(f"task.name: got '{name}'; allowed: {', '.join(NAMES)}{hint}")
    given = {f"files.{part}": file for part, file in files.items()} | settings
    if name in _OF_THE_HUB and revision is None:
        raise UserError(f"task.revision: got null; {name} comes from the hub, so name a branch or a commit, e.g. main")
    if name not in _OF_THE_HUB and revision is not None:
        raise UserError(f"task.revision: got '{revision}', but {name} does not come from the hub; leave it null")
    if name not in _OF_FILES:
        for key, value in given.items():
            if value is not None and value != [] and (name, key) != ("sql", "split_seed"):
                raise UserError(
                    f"task.{key}: got {value}, but {name} has its own data and splits; "
                    f"leave it null, or use task=local (for pairs of texts: task=pairs) for your own files"
                )
