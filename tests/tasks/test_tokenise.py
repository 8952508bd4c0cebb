"""Token ids equal the tokenizer's, the cache is keyed by content and survives damage, batches are padded exactly."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from loralab.errors import UserError
from loralab.tasks import RawTask, Split, Texts, collate, tokenise

SENTENCES = ["a film.", "It is not without its pleasures, but I'll stick with the tune.", "naïve 電影 ☺", "word " * 90]


class Counting:
    """The real tokenizer, counting how often it is called."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.calls = tokenizer, 0

    def __call__(self, *columns: list[str], **settings: Any) -> Any:
        # ["a"] asks for the template's own tokens; without truncation, the texts that were cut are read again
        self.calls += columns[0] != ["a"] and "truncation" in settings
        return self.tokenizer(*columns, **settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)


def _task(*columns: list[str], labels: Any = None) -> RawTask:
    texts = list(zip(*columns, strict=True))
    ids = np.arange(len(texts), dtype=np.int64) if labels is None else labels
    split = Texts(texts, ids, np.arange(len(texts), dtype=np.int64))
    return RawTask(
        "t", "classification", ("a", "b"), {"train": split, "test": split.take(np.array([1, 0]))}, ("accuracy",)
    )


def _tokenise(
    task: RawTask, tokenizer: Any, cache: Path, *, name: str = "minilm", length: int = 32
) -> dict[str, Split]:
    return tokenise(task, tokenizer, tokenizer_identity=name, max_length=length, cache=cache)


@pytest.mark.parametrize("second", [None, SENTENCES[::-1]])
def test_tokens_are_the_tokenizers_own(tokenizer: Any, tmp_path: Path, second: list[str] | None) -> None:
    columns = [SENTENCES] if second is None else [SENTENCES, second]
    splits = _tokenise(_task(*columns), tokenizer, tmp_path)
    for part, order in (("train", range(len(SENTENCES))), ("test", [1, 0])):
        split = splits[part]
        assert split.input_ids.dtype == np.int32 and split.offsets[-1] == len(split.input_ids)
        for i, row in enumerate(order):
            own = tokenizer(*(column[row] for column in columns), truncation=True, max_length=32)
            at = slice(split.offsets[i], split.offsets[i + 1])
            assert split.input_ids[at].tolist() == own["input_ids"]
            assert split.lengths[i] == len(own["input_ids"]) <= 32
            assert split.whole[i] == len(tokenizer(*(column[row] for column in columns), verbose=False)["input_ids"])
            if split.token_type_ids is not None:
                assert split.token_type_ids[at].tolist() == own["token_type_ids"]
        assert (split.token_type_ids is None) == (second is None)


def test_second_time_reads_equal_bytes_and_tokenises_nothing(tokenizer: Any, tmp_path: Path) -> None:
    counting = Counting(tokenizer)
    task = _task(SENTENCES, SENTENCES[::-1])
    first = _tokenise(task, counting, tmp_path)
    assert counting.calls == 2
    again = _tokenise(task, counting, tmp_path)
    assert counting.calls == 2
    for part in first:
        for field in ("input_ids", "offsets", "token_type_ids", "labels", "rows"):
            a, b = getattr(first[part], field), getattr(again[part], field)
            assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


def _changed(text: list[str]) -> list[tuple[RawTask, str, int]]:
    moved = [text[0] + text[1], "", *text[2:]]
    return [
        (_task(["A film.", *text[1:]]), "minilm", 32),
        (_task(text), "another", 32),
        (_task(text), "minilm", 31),
        (_task(moved), "minilm", 32),
        (_task(text, text), "minilm", 32),
    ]


@pytest.mark.parametrize("case", range(5), ids=["text", "tokenizer", "length", "boundaries", "columns"])
def test_any_change_of_content_is_another_cache_file(tokenizer: Any, tmp_path: Path, case: int) -> None:
    _tokenise(_task(SENTENCES), tokenizer, tmp_path)
    before = set((tmp_path / "tokens").iterdir())
    counting = Counting(tokenizer)
    task, name, length = _changed(SENTENCES)[case]
    _tokenise(task, counting, tmp_path, name=name, length=length)
    assert counting.calls == 2
    assert len(set((tmp_path / "tokens").iterdir()) - before) == 2


def test_labels_are_not_part_of_the_cache(tokenizer: Any, tmp_path: Path) -> None:
    _tokenise(_task(SENTENCES), tokenizer, tmp_path)
    counting = Counting(tokenizer)
    labels = np.array([0.5, 1, 2, 3], dtype=np.float32)
    split = _tokenise(_task(SENTENCES, labels=labels), counting, tmp_path)["train"]
    assert counting.calls == 0
    assert np.array_equal(split.labels, labels)


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "other", "pickle"])
def test_a_damaged_cache_file_is_built_again(tokenizer: Any, tmp_path: Path, damage: str) -> None:
    task = _task(SENTENCES)
    good = _tokenise(task, tokenizer, tmp_path)["train"]
    for path in (tmp_path / "tokens").iterdir():
        content = path.read_bytes()
        if damage == "other":
            arrays: Any = {"input_ids": good.input_ids[:-1], "offsets": good.offsets, "whole": good.whole}
            np.savez(path, **arrays, token_type_ids=good.input_ids[:0])
        elif damage == "pickle":
            objects = np.array([{}], dtype=object)
            np.savez(path, input_ids=objects, offsets=objects, token_type_ids=objects)
        else:
            middle = content.index(b"\x93NUMPY") + 140
            flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
            path.write_bytes({"empty": b"", "cut": content[:200], "flipped": flipped}[damage])
    counting = Counting(tokenizer)
    again = _tokenise(task, counting, tmp_path)["train"]
    assert counting.calls == 2
    assert again.input_ids.tobytes() == good.input_ids.tobytes()


def test_a_text_without_tokens_is_named(tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="b"))
    words.pre_tokenizer = pre_tokenizers.CharDelimiterSplit("\x00")  # gives this character no token
    silent = PreTrainedTokenizerFast(tokenizer_object=words)
    with pytest.raises(UserError, match=r"task\.text: t's train row 1 has no tokens"):
        _tokenise(_task(["a", "\x00", "b"]), silent, tmp_path)


def test_collate_pads_on_the_right_and_nothing_else(tokenizer: Any, tmp_path: Path) -> None:
    split = _tokenise(_task(SENTENCES, SENTENCES[::-1]), tokenizer, tmp_path)["train"]
    at = np.array([2, 0])
    batch = collate(split, at, pad_id=7)
    width = int(split.lengths[at].max())
    assert set(batch) == {"input_ids", "attention_mask", "token_type_ids", "labels"}
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())
    for row, i in enumerate(at):
        own = tokenizer(SENTENCES[i], SENTENCES[::-1][i], truncation=True, max_length=32)
        padding = width - len(own["input_ids"])
        assert batch["input_ids"][row].tolist() == own["input_ids"] + [7] * padding
        assert batch["attention_mask"][row].tolist() == own["attention_mask"] + [0] * padding
        assert batch["token_type_ids"][row].tolist() == own["token_type_ids"] + [0] * padding
        assert batch["labels"][row] == i


def test_collate_equals_the_tokenizers_own_padding(tokenizer: Any, tmp_path: Path) -> None:
    split = _tokenise(_task(SENTENCES), tokenizer, tmp_path)["train"]
    batch = collate(split, [0, 1, 2, 3], pad_id=tokenizer.pad_token_id)
    own = tokenizer(SENTENCES, truncation=True, max_length=32, padding=True, return_tensors="pt")
    assert torch.equal(batch["input_ids"], own["input_ids"])
    assert torch.equal(batch["attention_mask"], own["attention_mask"])
    assert "token_type_ids" not in batch


def test_collated_scores_are_float32(tokenizer: Any, tmp_path: Path) -> None:
    split = _tokenise(_task(SENTENCES, labels=np.linspace(0, 1, 4, dtype=np.float32)), tokenizer, tmp_path)["train"]
    batch = collate(split, [3], pad_id=0)
    assert batch["labels"].dtype == torch.float32 and batch["labels"].item() == 1
