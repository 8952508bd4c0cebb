"""predictions.parquet: one row a test example and set of weights, for bootstraps over test items."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from loralab.files import atomic_path

__all__ = ["packed_correct", "unpacked", "write_predictions"]


class Examples(Protocol):
    """A split's labels (n,) and its rows' places in the source (n,)."""

    @property
    def labels(self) -> NDArray[Any]: ...
    @property
    def rows(self) -> NDArray[np.int64]: ...


def write_predictions(
    path: Path, logits: Mapping[str, Mapping[str, NDArray[np.float32]]], splits: Mapping[str, Examples]
) -> None:
    """Writes columns at, split, row, label, logits; `logits` is {at (last or best step): {split: (n, classes)}}."""
    import pyarrow as pa
    from pyarrow import parquet

    tables = [
        pa.table(
            {
                "at": [at] * len(rows),
                "split": [split] * len(rows),
                "row": splits[split].rows,
                "label": splits[split].labels,
                "logits": pa.array(list(rows), type=pa.list_(pa.float32())),
            }
        )
        for at, by_split in logits.items()
        for split, rows in by_split.items()
    ]
    with atomic_path(path) as temporary:
        parquet.write_table(pa.concat_tables(tables), temporary)


def packed_correct(path: Path) -> str:
    """Which test examples the last step's weights got right, in the order of the source's rows, as text for a CSV.

    `unpacked` reads it. Empty where there is no such thing: a regression, or no test split.
    """
    from pyarrow import parquet

    table = parquet.read_table(path, filters=[("at", "==", "last"), ("split", "==", "test")]).sort_by("row")
    labels = table["label"].to_numpy()
    if not len(labels) or not np.issubdtype(labels.dtype, np.integer):
        return ""
    logits = np.stack(table["logits"].to_numpy())
    return f"{len(labels)}:{np.packbits(logits.argmax(axis=1) == labels).tobytes().hex()}"


def unpacked(text: str) -> NDArray[np.bool_]:
    """The flags (n,) of `packed_correct`."""
    count, _, digits = text.partition(":")
    return np.unpackbits(np.frombuffer(bytes.fromhex(digits), dtype=np.uint8), count=int(count)).astype(np.bool_)
