"""Tests of the corpus: the tokenizer decodes its training texts, blocks hold texts in order, results are fixed."""

import math
import random
from pathlib import Path

import numpy as np
import pytest

from loralab.pretraining.corpus import SPECIALS, prepare, unigram_entropy

TEXTS = [f"The film number {i} is good, and its plot<br />has {i * i} turns" for i in range(60)]
HELDOUT = ["A film without a plot", "The end of it is good"]


def test_blocks_are_the_texts_one_after_the_other(tmp_path: Path) -> None:
    corpus = prepare(TEXTS, HELDOUT, vocabulary=400, length=16, cache=tmp_path)
    flat = corpus.train.flatten().tolist()
    whole = [token for text in TEXTS for token in corpus.tokenizer(text)["input_ids"]]
    assert corpus.train.dtype == np.int32 and corpus.train.shape[1] == 16
    assert flat == whole[: len(flat)] and len(whole) - len(flat) < 16
    begin, end = SPECIALS.index("<s>"), SPECIALS.index("</s>")
    assert flat.count(begin) in (flat.count(end), flat.count(end) + 1) and flat[0] == begin


def test_the_tokenizer_tells_lower_case_text_without_line_breaks(tmp_path: Path) -> None:
    tokenizer = prepare(TEXTS, HELDOUT, vocabulary=400, length=16, cache=tmp_path).tokenizer
    ids = tokenizer("Its Plot<br />has", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids).strip() == "its plot has"
    assert tokenizer.convert_ids_to_tokens(range(len(SPECIALS))) == list(SPECIALS)
    assert 300 < len(tokenizer) <= 400 and tokenizer.model_max_length == 16
    pair = tokenizer("a", "b")["input_ids"]
    assert [SPECIALS[i] for i in pair if i < len(SPECIALS)] == ["<s>", "</s>", "</s>", "</s>"]


def test_an_unseen_byte_is_still_a_token(tmp_path: Path) -> None:
    tokenizer = prepare(TEXTS, HELDOUT, vocabulary=400, length=16, cache=tmp_path).tokenizer
    assert tokenizer.unk_token_id not in tokenizer("schön 漢字 ☃")["input_ids"]


def test_two_builds_are_equal_and_the_second_is_read(tmp_path: Path) -> None:
    one = prepare(TEXTS, HELDOUT, vocabulary=400, length=16, cache=tmp_path / "a")
    two = prepare(TEXTS, HELDOUT, vocabulary=400, length=16, cache=tmp_path / "b")
    files = [sorted((tmp_path / name / "corpora").rglob("*.*")) for name in ("a", "b")]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
    stamps = [path.stat().st_mtime_ns for path in files[0]]
    again = prepare(TEXTS, HELDOUT, vocabulary=400, length=16, cache=tmp_path / "a")
    assert [path.stat().st_mtime_ns for path in files[0]] == stamps
    assert (one.train == again.train).all() and (one.heldout == two.heldout).all()


@pytest.mark.parametrize("other", [{"vocabulary": 300}, {"length": 20}, {"heldout": TEXTS[:2]}, {"train": TEXTS[1:]}])
def test_other_texts_or_settings_are_another_corpus(tmp_path: Path, other: dict[str, object]) -> None:
    settings = {"train": TEXTS, "heldout": HELDOUT, "vocabulary": 400, "length": 16}
    for each in (settings, settings | other):
        prepare(**each, cache=tmp_path)  # type: ignore[arg-type]
    assert len(list((tmp_path / "corpora").iterdir())) == 2


def test_unigram_entropy_of_known_cases() -> None:
    first = len(SPECIALS)
    even = np.array([[0, first, first + 1, first + 2, first + 3, 2]], dtype=np.int32)
    assert unigram_entropy(even) == pytest.approx(math.log(4))
    assert unigram_entropy(np.full((3, 4), first, dtype=np.int32)) == 0
    skewed = np.array([[first] * 3 + [first + 1]], dtype=np.int32)
    assert unigram_entropy(skewed) == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))


def test_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    whole = prepare(TEXTS, HELDOUT, vocabulary=400, length=16, cache=tmp_path)
    draw = random.Random(0)
    for path in sorted((tmp_path / "corpora").glob("*/*")):
        for change in ("flip", "empty", "remove"):
            content = bytearray(path.read_bytes())
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
            path.unlink() if change == "remove" else path.write_bytes(content if change == "flip" else b"")
            again = prepare(TEXTS, HELDOUT, vocabulary=400, length=16, cache=tmp_path)
            assert (again.train == whole.train).all() and (again.heldout == whole.heldout).all()
            assert again.tokenizer("a film of one plot") == whole.tokenizer("a film of one plot")
