"""Word pieces: texts round-trip, a word is tokenised alike anywhere, the merges come from training texts only."""

import json
from collections.abc import Iterable

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from loralab.backbones import tiny
from loralab.backbones.byte_pair import MERGES, word_pieces
from loralab.tasks import TaskSettings, sql

SPECIALS = ("<pad>", "<eos>", "<unk>")


def find_merges(texts: Iterable[str], count: int) -> list[tuple[str, str]]:
    """The first `count` merges of byte-pair encoding (Sennrich et al. 2016): each joins the most frequent pair."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer, words = Tokenizer(models.BPE()), word_pieces(SPECIALS, (), unknown="<unk>")
    tokenizer.normalizer, tokenizer.pre_tokenizer = words.normalizer, words.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + count, initial_alphabet=alphabet, show_progress=False, special_tokens=[]
    )
    tokenizer.train_from_iterator(texts, trainer)
    return [(left, right) for left, right in json.loads(tokenizer.to_str())["model"]["merges"]]


@pytest.mark.parametrize("text", ["select year from films", "1950", " lead", "é☃\n b", "'a' , ( b )", "zyzzyva"])
def test_every_text_comes_back(text: str) -> None:
    tokenizer = tiny.make_tokenizer("sql_decoder")
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == text


def test_a_word_is_spelled_alike_at_the_start_and_after_a_space() -> None:
    tokenizer = word_pieces(SPECIALS, MERGES, unknown="<unk>")
    assert tokenizer.encode("films ( year").tokens[-1:] == tokenizer.encode("year").tokens == ["Ġyear"]


def test_digits_stand_alone() -> None:
    tokens = word_pieces(SPECIALS, MERGES, unknown="<unk>").encode("above 1950").tokens
    assert tokens[-4:] == ["1", "9", "5", "0"]


def test_merges_join_the_most_frequent_pair_first() -> None:
    assert find_merges(["ab ab ab", "abc"], 2) == [("a", "b"), ("Ġ", "ab")]
    assert find_merges(["xyxy"], 0) == []


def test_the_committed_merges_are_those_of_the_training_texts_of_the_sql_task() -> None:
    pairs = sql.read(TaskSettings("sql", split_seed=0)).splits["train"]
    texts = [*pairs.contexts, *(references[0] for references in pairs.references)]
    assert find_merges(texts, len(MERGES)) == list(MERGES)
    assert tiny.architecture("sql_decoder")["vocab_size"] == len(SPECIALS) + 256 + len({a + b for a, b in MERGES})
