"""Pairs as tokens: the loss is on the target only, contexts are cut but targets never, batches are padded exactly."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from loralab.errors import UserError
from loralab.tasks import Pairs, PairSplit, RawTask, collate_contexts, collate_training, tokenise_pairs
from loralab.tasks.tokenise_pairs import IGNORED

PAD, START, EOS, SEPARATOR = 0, 1, 2, 3
WORDS = ["<pad>", "<s>", "</s>", "|", *"abcdefghijklmnopqrstuvwxyz"]
CONTEXTS = ["a b c d e", "f", "g h i", "j k l m n o p q r s t u v"]
TARGETS = ["x y", "z", "w x y z", "a"]


def _tokenizer(template: str = "$A", *, eos: bool = True) -> Any:
    """One token per word; `template` gives the special tokens that the tokenizer adds by default."""
    model = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="|"))
    model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    model.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<s>", START), ("</s>", EOS)]
    )
    ends = {"eos_token": "</s>"} if eos else {}
    return PreTrainedTokenizerFast(tokenizer_object=model, pad_token="<pad>", bos_token="<s>", **ends)


class Counting:
    """The real tokenizer, counting how often it is called."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.calls = tokenizer, 0

    def __call__(self, *texts: Any, **settings: Any) -> Any:
        self.calls += 1
        return self.tokenizer(*texts, **settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)


def _task(contexts: list[str] = CONTEXTS, targets: list[str] = TARGETS, *more: str) -> RawTask[Pairs]:
    rows = np.arange(10, 10 + len(contexts), dtype=np.int64)
    pairs = Pairs(contexts, [(target, *more) for target in targets], rows)
    return RawTask("t", "generation", None, {"train": pairs}, ("exact_match",))


def _split(cache: Path, tokenizer: Any = None, task: RawTask[Pairs] | None = None, **settings: Any) -> PairSplit:
    own: dict[str, Any] = {"tokenizer_identity": "own", "max_length": 32, "seq2seq": False, "separator": "|"} | settings
    return tokenise_pairs(task or _task(), tokenizer or _tokenizer(), cache=cache, **own)["train"]


def _ids(text: str) -> list[int]:
    return [WORDS.index(word) for word in text.split()]


def _of(split: PairSplit, i: int) -> tuple[list[int], list[int]]:
    context = split.context_ids[split.context_offsets[i] : split.context_offsets[i + 1]]
    target = split.target_ids[split.target_offsets[i] : split.target_offsets[i + 1]]
    return context.tolist(), target.tolist()


@pytest.mark.parametrize(("template", "before"), [("$A", []), ("<s> $A", [START]), ("$A </s>", [])])
def test_a_decoder_reads_context_separator_target_end(tmp_path: Path, template: str, before: list[int]) -> None:
    split = _split(tmp_path, _tokenizer(template))
    assert len(split) == 4 and split.rows.tolist() == [10, 11, 12, 13]
    for i, (context, target) in enumerate(zip(CONTEXTS, TARGETS, strict=True)):
        assert _of(split, i) == ([*before, *_ids(context), SEPARATOR], [*_ids(target), EOS])
        assert split.lengths[i] == split.context_lengths[i] + len(_ids(target)) + 1
    assert split.context_ids.dtype == split.target_ids.dtype == np.int32


def test_an_encoder_reads_what_its_tokenizer_makes_of_the_context(tmp_path: Path) -> None:
    split = _split(tmp_path, _tokenizer("$A </s>"), seq2seq=True)
    for i, (context, target) in enumerate(zip(CONTEXTS, TARGETS, strict=True)):
        assert _of(split, i) == ([*_ids(context), EOS], [*_ids(target), EOS])
    cut = _split(tmp_path, _tokenizer("$A </s>"), seq2seq=True, max_length=6)
    assert _of(cut, 3)[0] == [*_ids("j k l m n"), EOS]
    assert cut.whole.tolist() == split.whole.tolist() == [6, 2, 4, 14]


def test_contexts_lose_their_end_and_keep_separator_and_target(tmp_path: Path) -> None:
    """All are cut to the room beside the longest target: a context's length does not reveal its target's."""
    split = _split(tmp_path, _tokenizer("<s> $A"), max_length=8)
    for i, (context, target) in enumerate(zip(CONTEXTS, TARGETS, strict=True)):
        assert _of(split, i) == ([START, *_ids(context)[:1], SEPARATOR], [*_ids(target), EOS])
    assert split.lengths.max() == 8
    assert split.whole.tolist() == [7 + len(context.split()) for context in CONTEXTS]
    uncut = _split(tmp_path, _tokenizer("<s> $A"), max_length=split.whole.max())
    assert _of(uncut, 3)[0] == [START, *_ids(CONTEXTS[3]), SEPARATOR]


@pytest.mark.parametrize(("seq2seq", "needed"), [(False, 7), (True, 5)])
def test_a_target_that_is_too_long_says_how_long_it_is(tmp_path: Path, seq2seq: bool, needed: int) -> None:
    tokenizer = _tokenizer("<s> $A")
    with pytest.raises(UserError, match=rf"train\.max_length: got 4; .* t's train row 12 takes {needed} tokens"):
        _split(tmp_path, tokenizer, max_length=4, seq2seq=seq2seq)
    split = _split(tmp_path, tokenizer, max_length=needed, seq2seq=seq2seq)
    assert _of(split, 2)[1] == [*_ids("w x y z"), EOS]


def test_labels_are_the_tokens_that_follow_on_the_target_alone(tmp_path: Path) -> None:
    split = _split(tmp_path)
    batch = collate_training(split, [0, 3, 1], pad_id=PAD, seq2seq=False, start_id=9)
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    assert all(value.dtype == torch.int64 and value.shape == (3, 15) for value in batch.values())
    for line, i in enumerate([0, 3, 1]):
        context, target = _of(split, i)
        row, length = context + target, len(context) + len(target)
        assert batch["input_ids"][line].tolist() == row[:-1] + [PAD] * (16 - length)
        assert batch["attention_mask"][line].tolist() == [1] * (length - 1) + [0] * (16 - length)
        labels = batch["labels"][line].tolist()
        assert [(t, label) for t, label in enumerate(labels) if label != IGNORED] == [
            (t, row[t + 1]) for t in range(len(context) - 1, length - 1)
        ]
        assert [label for label in labels if label != IGNORED] == target


def test_a_decoders_input_is_its_target_one_step_late(tmp_path: Path) -> None:
    split = _split(tmp_path, _tokenizer("$A </s>"), seq2seq=True)
    batch = collate_training(split, [1, 0], pad_id=PAD, seq2seq=True, start_id=9)
    assert batch["input_ids"].tolist() == [[*_ids("f"), EOS, 0, 0, 0, 0], [*_ids("a b c d e"), EOS]]
    assert batch["attention_mask"].sum(1).tolist() == [2, 6]
    assert batch["decoder_input_ids"].tolist() == [[9, *_ids("z"), PAD], [9, *_ids("x y")]]
    assert batch["labels"].tolist() == [[*_ids("z"), EOS, IGNORED], [*_ids("x y"), EOS]]


@pytest.mark.parametrize("left", [True, False])
def test_contexts_alone_are_padded_on_the_side_that_is_asked_for(tmp_path: Path, left: bool) -> None:
    batch = collate_contexts(_split(tmp_path), np.array([1, 2]), pad_id=PAD, left=left)
    short, tail = [*_ids("f"), SEPARATOR], [PAD, PAD]
    assert batch["input_ids"].tolist() == [tail + short if left else short + tail, [*_ids("g h i"), SEPARATOR]]
    assert batch["attention_mask"].tolist() == [[0, 0, 1, 1] if left else [1, 1, 0, 0], [1, 1, 1, 1]]
    assert all(value.dtype == torch.int64 for value in batch.values())


def test_second_time_reads_equal_bytes_and_tokenises_nothing(tmp_path: Path) -> None:
    counting = Counting(_tokenizer())
    first = _split(tmp_path, counting)
    calls = counting.calls
    again = _split(tmp_path, counting, _task(CONTEXTS, TARGETS, "another reference"))  # which only scores
    assert counting.calls == calls > 0
    for field in ("context_ids", "context_offsets", "target_ids", "target_offsets", "rows"):
        a, b = getattr(first, field), getattr(again, field)
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


@pytest.mark.parametrize(
    "change",
    [
        {"task": _task([*CONTEXTS[:3], "a"])},
        {"task": _task(CONTEXTS, [*TARGETS[:3], "b"])},
        {"task": _task([CONTEXTS[0] + CONTEXTS[1], "", *CONTEXTS[2:]])},
        {"tokenizer_identity": "another"},
        {"max_length": 31},
        {"separator": "| |"},
        {"seq2seq": True},
    ],
    ids=["context", "target", "boundaries", "tokenizer", "length", "separator", "shape"],
)
def test_any_change_of_content_is_another_cache_file(tmp_path: Path, change: dict[str, Any]) -> None:
    _split(tmp_path)
    assert len(list((tmp_path / "tokens").iterdir())) == 1
    if change.get("task") and not change["task"].splits["train"].contexts[1]:
        change = change | {"tokenizer": _tokenizer("<s> $A")}
    _split(tmp_path, **change)
    assert len(list((tmp_path / "tokens").iterdir())) == 2


@pytest.mark.parametrize("damage", ["empty", "cut", "other"])
def test_a_damaged_cache_file_is_built_again(tmp_path: Path, damage: str) -> None:
    good = _split(tmp_path)
    (path,) = (tmp_path / "tokens").iterdir()
    content = path.read_bytes()
    if damage == "other":
        np.savez(
            path, context_ids=good.context_ids[:-1], context_offsets=good.context_offsets,
            target_ids=good.target_ids, target_offsets=good.target_offsets,
        )  # fmt: skip
    else:
        path.write_bytes(b"" if damage == "empty" else content[: len(content) // 2])
    again = _split(tmp_path)
    assert again.context_ids.tobytes() == good.context_ids.tobytes()
    assert path.read_bytes() == content


def test_a_context_without_a_token_is_refused_where_nothing_stands_for_it(tmp_path: Path) -> None:
    empty = _task(["a", " "], ["b", "c"])
    with pytest.raises(UserError, match=r"task\.text: t's train row 11 has no tokens"):
        _split(tmp_path, task=empty, seq2seq=True)
    assert _of(_split(tmp_path, task=empty), 1)[0] == [SEPARATOR]


def test_a_tokenizer_that_ends_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.name: its tokenizer has no end-of-sequence token"):
        _split(tmp_path, _tokenizer(eos=False))
