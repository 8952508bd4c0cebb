"""Tokenised pairs as ragged arrays, cached on disk by content, and their collation for training and for decoding.

A decoder reads context, separator and target as one sequence; an encoder-decoder reads the context and generates the
target. In both, the target ends with the tokenizer's end-of-sequence token, and the loss is on the target only.
"""

import hashlib
import importlib.metadata
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from loralab.errors import UserError
from loralab.store.cached_arrays import read_arrays, write_arrays
from loralab.tasks.special_tokens import encode
from loralab.tasks.splits import Pairs, RawTask
from loralab.tasks.tokenise import whole_lengths

if TYPE_CHECKING:
    import torch

__all__ = ["IGNORED", "PairSplit", "collate_contexts", "collate_training", "encode_contexts", "tokenise_pairs"]

IGNORED = -100  # label that torch's cross entropy ignores

_FORMAT = "4"  # version of the cache files; part of their key
_ROWS_A_CALL = 8_192  # texts per call of the tokenizer: bounds the Python lists that it returns

_Ids = npt.NDArray[np.int32]
_Offsets = npt.NDArray[np.int64]
_Indices = npt.NDArray[np.int64] | Sequence[int]


@dataclass(frozen=True)
class PairSplit:
    """n tokenised pairs: of example i, the context is `context_ids[context_offsets[i]:context_offsets[i + 1]]`.

    Ids are flat (int32), offsets are (n + 1,) int64; the same holds for targets. `whole` (n,) int64 has the smallest
    train.max_length that does not cut the example; `rows` is as in `Pairs`.
    """

    context_ids: _Ids
    context_offsets: _Offsets
    target_ids: _Ids
    target_offsets: _Offsets
    whole: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of tokens of each example, context and target together, (n,) int64."""
        return self.context_lengths + np.diff(self.target_offsets)

    @property
    def context_lengths(self) -> npt.NDArray[np.int64]:
        """Number of tokens of each context, (n,) int64."""
        return np.diff(self.context_offsets)


def tokenise_pairs(
    raw: RawTask[Pairs],
    tokenizer: Any,
    *,
    tokenizer_identity: str,
    max_length: int,
    seq2seq: bool,
    separator: str,
    cache: Path,
) -> dict[str, PairSplit]:
    """Every split of `raw` as token ids, read from `cache`/tokens if the same pairs were tokenised before.

    Causal: beginning-of-sequence token if the tokenizer adds one, context, separator; contexts are cut at their end
    so that each fits into `max_length` tokens with the split's longest target. seq2seq: the tokenizer's default
    encoding of the context, without the separator; context and target have at most `max_length` tokens each. Targets
    are never cut: one that is too long raises UserError. Cache keys are as in `tokenise`.
    """
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"model.name: its tokenizer has no end-of-sequence token, so generated text would not end; "
            f"{raw.name} needs a model that generates, e.g. model=gpt2"
        )
    splits = {}
    for part, pairs in raw.splits.items():
        path = cache / "tokens" / f"{_key(pairs, tokenizer_identity, max_length, seq2seq, separator)}.npz"
        arrays = _load(path, len(pairs))
        if arrays is None:
            name = f"{raw.name}'s {part} row"
            contexts, targets, whole = _encode(
                pairs, tokenizer, max_length, seq2seq=seq2seq, separator=separator, name=name
            )
            arrays = _ragged("context", contexts) | _ragged("target", targets) | {"whole": whole}
            write_arrays(path, arrays)
        splits[part] = PairSplit(**arrays, rows=pairs.rows)
    return splits


def encode_contexts(
    contexts: list[str], tokenizer: Any, *, max_length: int, seq2seq: bool, separator: str, name: str
) -> PairSplit:
    """Contexts without targets, each of at most `max_length` tokens, otherwise as `tokenise_pairs` has them, uncached.

    A context may have no tokens. name: precedes the row's number, from 0, in errors.
    """
    rows = np.arange(len(contexts), dtype=np.int64)
    if seq2seq:
        found = _call(tokenizer, contexts, name, rows, truncation=True, max_length=max_length)
        whole = whole_lengths(
            _lengths(found), max_length, lambda at: _call(tokenizer, [contexts[i] for i in at], name, at, verbose=False)
        )
    else:
        before, after = _start(tokenizer), _separator(tokenizer, separator)
        room = max_length - len(before) - len(after)
        ids = _call(tokenizer, contexts, name, rows, add_special_tokens=False, verbose=False)
        found, whole = [before + context[:room] + after for context in ids], len(before + after) + _lengths(ids)
    return PairSplit(**_ragged("context", found), **_ragged("target", [[]] * len(contexts)), whole=whole, rows=rows)


def collate_training(
    split: PairSplit, indices: _Indices, *, pad_id: int, seq2seq: bool, start_id: int
) -> dict[str, "torch.Tensor"]:
    """A batch for the loss, padded on the right to its longest example; all int64 (batch, width).

    labels[i, t] is the token that the logits at t predict, IGNORED for padding and for tokens of the context. Causal:
    input_ids, attention_mask and labels of the context and the target without its last token. seq2seq: input_ids and
    attention_mask of the context; decoder_input_ids (`start_id`, then the target without its last token) and labels.
    """
    at = np.asarray(indices, dtype=np.int64)
    contexts = _rows(split.context_ids, split.context_offsets, at)
    targets = _rows(split.target_ids, split.target_offsets, at)
    if seq2seq:
        shifted = [np.concatenate([[start_id], target[:-1]]) for target in targets]
        return _tensors(
            **_padded(contexts, pad_id), decoder_input_ids=_pad(shifted, pad_id), labels=_pad(targets, IGNORED)
        )
    rows = list(zip(contexts, targets, strict=True))
    inputs = [np.concatenate([context, target[:-1]]) for context, target in rows]
    labels = [np.concatenate([np.full(len(context) - 1, IGNORED), target]) for context, target in rows]
    return _tensors(**_padded(inputs, pad_id), labels=_pad(labels, IGNORED))


def collate_contexts(split: PairSplit, indices: _Indices, *, pad_id: int, left: bool) -> dict[str, "torch.Tensor"]:
    """A batch for decoding: input_ids and attention_mask of the contexts, int64 (batch, width).

    `left` pads on the left, so that a decoder's output directly follows the context.
    """
    contexts = _rows(split.context_ids, split.context_offsets, np.asarray(indices, dtype=np.int64))
    return _tensors(**_padded(contexts, pad_id, left=left))


def _encode(
    pairs: Pairs, tokenizer: Any, max_length: int, *, seq2seq: bool, separator: str, name: str
) -> tuple[list[list[int]], list[list[int]], npt.NDArray[np.int64]]:
    """Token ids of contexts and targets, and `PairSplit.whole`; `name` precedes the row number in errors."""

    def read(texts: list[str], **settings: Any) -> list[list[int]]:
        return _call(tokenizer, texts, name, pairs.rows, **settings)

    def ids(texts: list[str]) -> list[list[int]]:
        return read(texts, add_special_tokens=False, verbose=False)

    targets = [[*row, tokenizer.eos_token_id] for row in ids([references[0] for references in pairs.references])]
    before, after = ([], []) if seq2seq else (_start(tokenizer), _separator(tokenizer, separator))
    longest = max(range(len(targets)), key=lambda i: len(targets[i]))
    needed = len(before) + len(after) + len(targets[longest])
    if needed > max_length:
        raise UserError(
            f"train.max_length: got {max_length}; the target of {name} {pairs.rows[longest]} takes {needed} tokens "
            f"by itself, and targets are never cut; set it to {needed} at least, and to more for the contexts"
        )
    if seq2seq:
        contexts = read(pairs.contexts, truncation=True, max_length=max_length)
        texts = pairs.contexts
        whole = whole_lengths(_lengths(contexts), max_length, lambda at: read([texts[i] for i in at], verbose=False))
    else:
        room = max_length - needed  # the same for every row, so that a context's length does not reveal its target's
        uncut = ids(pairs.contexts)
        contexts, whole = [before + context[:room] + after for context in uncut], needed + _lengths(uncut)
    for row, context in zip(pairs.rows, contexts, strict=True):
        if not context:
            raise UserError(f"task.text: {name} {row} has no tokens; remove it or give it text")
    return contexts, targets, whole


def _call(tokenizer: Any, texts: list[str], name: str, numbers: _Indices, **settings: Any) -> list[list[int]]:
    rows: list[list[int]] = []
    for start in range(0, len(texts), _ROWS_A_CALL):
        some = texts[start : start + _ROWS_A_CALL]
        rows += encode(tokenizer, [some], name, numbers[start:], **settings)["input_ids"]
    return rows


def _separator(tokenizer: Any, separator: str) -> list[int]:
    """The separator's ids; it is a setting, so that a special token in it is meant as one."""
    found: list[int] = tokenizer(separator, add_special_tokens=False)["input_ids"]
    return found


def _start(tokenizer: Any) -> list[int]:
    """The beginning-of-sequence token if the tokenizer adds one to a text by default, else nothing."""
    first: int = tokenizer("a")["input_ids"][0]
    return [first] if first == tokenizer.bos_token_id else []


def _lengths(rows: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    return np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))


def _ragged(name: str, rows: Sequence[Sequence[int]]) -> dict[str, npt.NDArray[Any]]:
    lengths = _lengths(rows)
    return {
        f"{name}_ids": np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int32, count=lengths.sum()),
        f"{name}_offsets": np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)]),
    }


def _rows(ids: _Ids, offsets: _Offsets, at: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    return [ids[offsets[i] : offsets[i + 1]].astype(np.int64) for i in at]


def _padded(rows: Sequence[npt.NDArray[np.int64]], pad_id: int, *, left: bool = False) -> dict[str, Any]:
    ones = [np.ones(len(row), dtype=np.int64) for row in rows]
    return {"input_ids": _pad(rows, pad_id, left=left), "attention_mask": _pad(ones, 0, left=left)}


def _pad(rows: Sequence[npt.NDArray[np.int64]], value: int, *, left: bool = False) -> npt.NDArray[np.int64]:
    width = max(map(len, rows))
    padded = np.full((len(rows), width), value, dtype=np.int64)
    for line, row in zip(padded, rows, strict=True):
        start = width - len(row) if left else 0
        line[start : start + len(row)] = row
    return padded


def _tensors(**arrays: npt.NDArray[np.int64]) -> dict[str, "torch.Tensor"]:
    import torch

    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _key(pairs: Pairs, tokenizer_identity: str, max_length: int, seq2seq: bool, separator: str) -> str:
    """SHA-256 (first 32 hex digits) of the texts with their lengths (so that boundaries count) and the settings."""
    versions = [f"{name}=={importlib.metadata.version(name)}" for name in ("tokenizers", "transformers")]
    settings = [tokenizer_identity, str(max_length), "seq2seq" if seq2seq else "causal", separator]
    digest = hashlib.sha256("\0".join(["pairs", _FORMAT, *settings, *versions]).encode())
    flat = [*pairs.contexts, *(references[0] for references in pairs.references)]
    digest.update(np.array([*map(len, flat)], dtype=np.int64).tobytes())
    digest.update("".join(flat).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]


def _load(path: Path, count: int) -> dict[str, npt.NDArray[Any]] | None:
    """The cached arrays; None if the file is missing or damaged."""
    names = [f"{side}_{what}" for side in ("context", "target") for what in ("ids", "offsets")]
    arrays = read_arrays(path, [*names, "whole"])
    if arrays is None:
        return None
    complete = len(arrays["whole"]) == count and all(
        len(arrays[f"{side}_offsets"]) == count + 1 and arrays[f"{side}_offsets"][-1] == len(arrays[f"{side}_ids"])
        for side in ("context", "target")
    )
    return arrays if complete else None
