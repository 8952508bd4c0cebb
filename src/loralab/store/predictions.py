"""predictions.parquet: one row per test example and set of weights (last, best), for bootstraps over test items."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from loralab.errors import UserError
from loralab.files import atomic_path

__all__ = ["packed_correct", "read_predictions", "unpacked", "write_answers", "write_predictions"]


class Examples(Protocol):
    """A split's labels (n,) and its rows' indices in the source (n,)."""

    @property
    def labels(self) -> NDArray[Any]: ...
    @property
    def rows(self) -> NDArray[np.int64]: ...


def write_predictions(
    path: Path,
    logits: Mapping[str, Mapping[str, NDArray[np.float32]]],
    splits: Mapping[str, Examples],
    labels: Sequence[str] | None = None,
) -> None:
    """Writes columns at, split, row, label, logits, and for classes label_name and predicted.

    logits: {at (last or best step): {split: (n, classes)}}; labels: the names of the classes, None for numbers.
    """
    import pyarrow as pa
    from pyarrow import parquet

    tables = []
    for at, by_split in logits.items():
        for split, rows in by_split.items():
            columns = {
                "at": [at] * len(rows),
                "split": [split] * len(rows),
                "row": splits[split].rows,
                "label": splits[split].labels,
                "logits": pa.array(list(rows), type=pa.list_(pa.float32())),
            }
            if labels is not None:
                for name, ids in (("label_name", splits[split].labels), ("predicted", rows.argmax(axis=1))):
                    columns[name] = pa.DictionaryArray.from_arrays(pa.array(ids, type=pa.int32()), list(labels))
            tables.append(pa.table(columns))
    with atomic_path(path) as temporary:
        parquet.write_table(pa.concat_tables(tables), temporary)


class Generated(Protocol):
    """For each row: the generated text, the sum of -log p over its target's tokens, and their number."""

    @property
    def texts(self) -> list[str]: ...
    @property
    def losses(self) -> NDArray[np.float64]: ...
    @property
    def tokens(self) -> NDArray[np.int64]: ...


class References(Protocol):
    """A split's reference answers, and its rows' indices in the source."""

    @property
    def references(self) -> list[tuple[str, ...]]: ...
    @property
    def rows(self) -> NDArray[np.int64]: ...


def write_answers(
    path: Path,
    answers: Mapping[str, Mapping[str, Generated]],
    correct: Mapping[str, Mapping[str, NDArray[np.bool_] | None]],
    splits: Mapping[str, References],
) -> None:
    """Writes columns at, split, row, references, text, loss, tokens, correct (null for a metric of the whole split)."""
    import pyarrow as pa
    from pyarrow import parquet

    tables = []
    for at, by_split in answers.items():
        for split, found in by_split.items():
            right = correct[at][split]
            columns = {
                "at": [at] * len(found.texts),
                "split": [split] * len(found.texts),
                "row": splits[split].rows,
                "references": pa.array([list(r) for r in splits[split].references], type=pa.list_(pa.string())),
                "text": pa.array(found.texts, type=pa.string()),
                "loss": found.losses,
                "tokens": found.tokens,
                "correct": pa.array([None] * len(found.texts) if right is None else right, type=pa.bool_()),
            }
            tables.append(pa.table(columns))
    with atomic_path(path) as temporary:
        parquet.write_table(pa.concat_tables(tables), temporary)


def read_predictions(path: Path, split: str, *, at: Literal["last", "best"] = "last") -> Any:
    """The pyarrow table of a split's predictions at the last or best step; raises UserError for a damaged file."""
    from pyarrow import ArrowException, parquet

    try:
        return parquet.read_table(path, filters=[("at", "==", at), ("split", "==", split)])
    except (ArrowException, OSError, KeyError) as error:
        raise UserError(
            f"{path} is damaged ({str(error).splitlines()[0][:80]}); remove {path.parent}, and the same command trains "
            "the run again"
        ) from error


def packed_correct(path: Path) -> str:
    """Whether each test example is correct at the last step, in the order of the source's rows, as text for a CSV.

    `unpacked` reads it. Empty for a regression, for a metric of the whole split, and without a test split. Raises
    UserError for a damaged file.
    """
    table = read_predictions(path, "test").sort_by("row")
    if "correct" in table.column_names:
        right = None if table["correct"].null_count else table["correct"].to_numpy()
    else:
        labels = table["label"].to_numpy()
        whole = len(labels) and np.issubdtype(labels.dtype, np.integer)
        right = np.stack(table["logits"].to_numpy()).argmax(axis=1) == labels if whole else None
    if right is None or not len(right):
        return ""
    return f"{len(right)}:{np.packbits(right).tobytes().hex()}"


def unpacked(text: str) -> NDArray[np.bool_]:
    """The flags (n,) of `packed_correct`."""
    count, _, digits = text.partition(":")
    return np.unpackbits(np.frombuffer(bytes.fromhex(digits), dtype=np.uint8), count=int(count)).astype(np.bool_)
