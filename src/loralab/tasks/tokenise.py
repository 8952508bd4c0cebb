"""Tokenised splits as ragged arrays, cached on disk by content, and their collation into padded batches."""

import hashlib
import importlib.metadata
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from loralab.errors import UserError
from loralab.store.cached_arrays import read_arrays, write_arrays
from loralab.tasks.special_tokens import encode
from loralab.tasks.splits import Labels, RawTask, Texts

if TYPE_CHECKING:
    import torch

__all__ = ["Split", "collate", "tokenise", "whole_lengths"]

Uncut = Callable[[npt.NDArray[np.int64]], Sequence[Sequence[int]]]
"""Indices of texts -> their token ids, without truncation."""

_FORMAT = "3"  # version of the cache files; part of their key
_ROWS_A_CALL = 8_192  # texts per call of the tokenizer: bounds the Python lists that it returns


@dataclass(frozen=True)
class Split:
    """n tokenised examples: example i is `input_ids[offsets[i]:offsets[i + 1]]`.

    `input_ids` is flat (int32), `offsets` is (n + 1,) int64; `token_type_ids` (flat, int8) is None if all are 0, the
    default of models; `whole` (n,) int64 has the number of tokens of each example before it was cut; `labels` and
    `rows` are as in `Texts`.
    """

    input_ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    token_type_ids: npt.NDArray[np.int8] | None
    whole: npt.NDArray[np.int64]
    labels: Labels
    rows: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of tokens of each example, (n,) int64."""
        return np.diff(self.offsets)


def tokenise(
    raw: RawTask, tokenizer: Any, *, tokenizer_identity: str, max_length: int, cache: Path
) -> dict[str, Split]:
    """Every split of `raw` as token ids, read from `cache`/tokens if the same texts were tokenised before.

    The key of a split's file is made of its texts, `tokenizer_identity` (the tokenizer's fingerprint or commit), the
    versions of the tokenizer libraries and `max_length`; a damaged file is rebuilt. Of two texts, the longer one is
    truncated.
    """
    splits = {}
    for part, texts in raw.splits.items():
        path = cache / "tokens" / f"{_key(texts, tokenizer_identity, max_length)}.npz"
        arrays = _load(path, len(texts))
        if arrays is None:
            arrays = _encode(texts, tokenizer, max_length, name=f"{raw.name}'s {part} row")
            write_arrays(path, arrays)
        if not np.diff(arrays["offsets"]).all():
            empty = texts.rows[np.flatnonzero(np.diff(arrays["offsets"]) == 0)[0]]
            raise UserError(f"task.text: {raw.name}'s {part} row {empty} has no tokens; remove it or give it text")
        splits[part] = Split(
            input_ids=arrays["input_ids"],
            offsets=arrays["offsets"],
            token_type_ids=arrays["token_type_ids"] if len(arrays["token_type_ids"]) else None,
            whole=arrays["whole"],
            labels=texts.labels,
            rows=texts.rows,
        )
    return splits


def collate(split: Split, indices: npt.NDArray[np.int64] | Sequence[int], *, pad_id: int) -> dict[str, "torch.Tensor"]:
    """A batch padded on the right to its longest example.

    input_ids, attention_mask (1 on tokens) and, if the split has them, token_type_ids: int64 (batch, width);
    labels: int64 or float32 (batch,).
    """
    import torch

    at = np.asarray(indices, dtype=np.int64)
    starts, lengths = split.offsets[at], split.offsets[at + 1] - split.offsets[at]
    columns = np.arange(lengths.max())
    mask_bt = columns < lengths[:, None]
    flat = (starts[:, None] + columns)[mask_bt]
    batch = {"input_ids": np.full(mask_bt.shape, pad_id, dtype=np.int64), "attention_mask": mask_bt.astype(np.int64)}
    batch["input_ids"][mask_bt] = split.input_ids[flat]
    if split.token_type_ids is not None:
        batch["token_type_ids"] = np.zeros(mask_bt.shape, dtype=np.int64)
        batch["token_type_ids"][mask_bt] = split.token_type_ids[flat]
    return {name: torch.from_numpy(array) for name, array in (batch | {"labels": split.labels[at]}).items()}


def _encode(split: Texts, tokenizer: Any, max_length: int, *, name: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a split; `name` precedes the row number in errors."""
    ids, types, lengths, whole = [], [], [], []
    for start in range(0, len(split), _ROWS_A_CALL):
        columns = [list(column) for column in zip(*split.texts[start : start + _ROWS_A_CALL], strict=True)]
        rows = split.rows[start:]
        encoded = encode(tokenizer, columns, name, rows, truncation=True, max_length=max_length)
        ids.append(_flat(encoded["input_ids"], np.int32))
        lengths.append(np.array([len(row) for row in encoded["input_ids"]], dtype=np.int64))

        def uncut(at: npt.NDArray[np.int64], columns: Any = columns, rows: Any = rows) -> list[list[int]]:
            again = [[column[i] for i in at] for column in columns]
            return encode(tokenizer, again, name, rows[at], verbose=False)["input_ids"]

        whole.append(whole_lengths(lengths[-1], max_length, uncut))
        if "token_type_ids" in encoded:
            types.append(_flat(encoded["token_type_ids"], np.int8))
    token_types = np.concatenate(types) if types else np.empty(0, dtype=np.int8)
    return {
        "input_ids": np.concatenate(ids),
        "offsets": np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(np.concatenate(lengths))]),
        "token_type_ids": token_types if token_types.any() else np.empty(0, dtype=np.int8),
        "whole": np.concatenate(whole),
    }


def whole_lengths(lengths: npt.NDArray[np.int64], max_length: int, uncut: Uncut) -> npt.NDArray[np.int64]:
    """Tokens of each text without truncation, from those with it; only texts of `max_length` tokens are read again."""
    whole, full = lengths.copy(), np.flatnonzero(lengths >= max_length)
    if len(full):
        whole[full] = [len(row) for row in uncut(full)]
    return whole


def _flat(rows: Sequence[Sequence[int]], dtype: type[np.integer[Any]]) -> npt.NDArray[Any]:
    return np.fromiter(itertools.chain.from_iterable(rows), dtype=dtype, count=sum(map(len, rows)))


def _key(texts: Texts, tokenizer_identity: str, max_length: int) -> str:
    """SHA-256 (first 32 hex digits) of the texts with their lengths (so that boundaries count) and the settings."""
    versions = [f"{name}=={importlib.metadata.version(name)}" for name in ("tokenizers", "transformers")]
    digest = hashlib.sha256("\0".join([_FORMAT, tokenizer_identity, str(max_length), *versions]).encode())
    columns = len(texts.texts[0])
    flat = list(itertools.chain.from_iterable(texts.texts))
    digest.update(np.array([columns, *map(len, flat)], dtype=np.int64).tobytes())
    digest.update("".join(flat).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]


def _load(path: Path, count: int) -> dict[str, npt.NDArray[Any]] | None:
    """The cached arrays; None if the file is missing or damaged."""
    arrays = read_arrays(path, ("input_ids", "offsets", "token_type_ids", "whole"))
    if arrays is None:
        return None
    offsets, ids, types = arrays["offsets"], arrays["input_ids"], arrays["token_type_ids"]
    complete = len(offsets) == count + 1 == len(arrays["whole"]) + 1
    return arrays if complete and offsets[-1] == len(ids) and len(types) in (0, len(ids)) else None
