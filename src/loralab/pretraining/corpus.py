"""Texts -> a byte-level BPE tokenizer trained on them, and their tokens in blocks of one length; cached by content."""

import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loralab.errors import UserError
from loralab.files import atomic_directory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["SPECIALS", "Corpus", "prepare", "unigram_entropy"]

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
"""RoBERTa's, with its ids: 0 to 4."""

_FORMAT = "1"  # version of the cache; part of its key
FILES = ("tokenizer.json", "train.npy", "heldout.npy")
DIGEST = "digest"  # a file with the SHA-256 of the others
_TEXTS_A_CALL = 1_000


@dataclass(frozen=True)
class Corpus:
    """A tokenizer and two sets of blocks (count, length) of its ids, int32: <s> text </s> <s> text ..., cut anywhere.

    The rest of a set that is shorter than a block is dropped.
    """

    tokenizer: "PreTrainedTokenizerBase"
    train: NDArray[np.int32]
    heldout: NDArray[np.int32]


def prepare(train: Sequence[str], heldout: Sequence[str], *, vocabulary: int, length: int, cache: Path) -> Corpus:
    """The corpus of these texts, read from `cache`/corpora where it was prepared before.

    vocabulary: number of tokens, including special and single-byte ones; length: tokens per block. The tokenizer is
    trained on `train` only, and lower-cases text, like the sentences of Rotten Tomatoes.
    """
    folder = cache / "corpora" / _key(train, heldout, vocabulary, length)
    if not _is_whole(folder):
        shutil.rmtree(folder, ignore_errors=True)
        try:
            _build(folder, train, heldout, vocabulary, length)
        except (OSError, UserError):
            if not _is_whole(folder):  # else another process has built it meanwhile
                raise
    blocks = {part: np.load(folder / f"{part}.npy") for part in ("train", "heldout")}
    return Corpus(_wrapped(folder / "tokenizer.json", length), **blocks)


def unigram_entropy(blocks: NDArray[np.int32]) -> float:
    """-sum p log p over the tokens that are not special, in nats: the loss of predicting by token frequency alone."""
    counts = np.bincount(blocks[blocks >= len(SPECIALS)]).astype(np.float64)
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())


def _build(folder: Path, train: Sequence[str], heldout: Sequence[str], vocabulary: int, length: int) -> None:
    tokenizer = _trained(train, vocabulary)
    blocks = {"train": _blocks(tokenizer, train, length), "heldout": _blocks(tokenizer, heldout, length)}
    with atomic_directory(folder) as temporary:
        tokenizer.save(str(temporary / "tokenizer.json"))
        for part, of in blocks.items():
            np.save(temporary / f"{part}.npy", of)
        (temporary / DIGEST).write_text(_digest(temporary))


def _is_whole(folder: Path) -> bool:
    """Whether the folder's files are those that were written there."""
    try:
        return (folder / DIGEST).read_text() == _digest(folder)
    except (OSError, ValueError):
        return False


def _digest(folder: Path) -> str:
    total = hashlib.sha256()
    for name in FILES:
        with (folder / name).open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def _trained(texts: Sequence[str], vocabulary: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Lowercase(), normalizers.Replace("<br />", " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        show_progress=False,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer, length=len(texts))
    begin, end = (SPECIALS.index(token) for token in ("<s>", "</s>"))
    # positional: the second parameter is `cls` in tokenizers 0.22 and `cls_token` in 0.23
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", end), ("<s>", begin), trim_offsets=False)
    return tokenizer


def _blocks(tokenizer: Any, texts: Sequence[str], length: int) -> NDArray[np.int32]:
    parts = []
    for start in range(0, len(texts), _TEXTS_A_CALL):
        encoded = tokenizer.encode_batch_fast(list(texts[start : start + _TEXTS_A_CALL]))
        parts += [np.array(each.ids, dtype=np.int32) for each in encoded]
    flat = np.concatenate(parts)
    return flat[: len(flat) // length * length].reshape(-1, length)


def _wrapped(path: Path, length: int) -> "PreTrainedTokenizerBase":
    """The tokenizer as transformers loads and saves it."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_file=str(path),
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=length,
        model_input_names=["input_ids", "attention_mask"],
    )


def _key(train: Sequence[str], heldout: Sequence[str], vocabulary: int, length: int) -> str:
    settings = [_FORMAT, vocabulary, length, importlib.metadata.version("tokenizers")]
    digest = hashlib.sha256(json.dumps([settings, list(train), list(heldout)]).encode())
    return digest.hexdigest()[:32]
