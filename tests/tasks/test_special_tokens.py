"""A special token's spelling in a text is text, for every kind of tokenizer; other texts keep their ids."""

from collections.abc import Sequence
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from loralab.errors import UserError
from loralab.tasks.special_tokens import encode

PLAIN = ["a film.", "It is not without its pleasures.", "naïve 電影 ☺", "a < b > c [x] /s", "word " * 40]
ROLES = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
CORNERS = processors.TemplateProcessing(
    single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
)


def _byte_level(merged: Sequence[tuple[str, str]] = ()) -> Any:
    """Byte-level BPE, such as BART's, GPT-2's and Llama 3's; `merged` are merges that spell special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *alphabet, *("".join(pair) for pair in merged[:-1])]
    raw = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=list(merged)))
    raw.pre_tokenizer, raw.post_processor = pre_tokenizers.ByteLevel(add_prefix_space=False), CORNERS
    return PreTrainedTokenizerFast(tokenizer_object=raw, **ROLES)


def _unigram() -> Any:
    """SentencePiece's Unigram, such as T5's and XLM-R's: its special tokens are pieces, which any text matches."""
    letters = [(letter, -5.0 - i / 10) for i, letter in enumerate("abcdefghijklmnopqrstuvwxyzA/>[]<.,'I")]
    pieces = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>", "<mask>", "<extra_id_0>")]
    raw = Tokenizer(models.Unigram([*pieces, ("▁", -2.0), ("▁film", -3.0), *letters], unk_id=3))
    raw.normalizer, raw.pre_tokenizer, raw.post_processor = normalizers.NFKC(), pre_tokenizers.Metaspace(), CORNERS
    return PreTrainedTokenizerFast(tokenizer_object=raw, **ROLES, additional_special_tokens=["<extra_id_0>"])


def _words() -> Any:
    """Whole words, among them the special tokens."""
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a", "film", "is", "not", "b"]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer, raw.post_processor = pre_tokenizers.WhitespaceSplit(), CORNERS
    return PreTrainedTokenizerFast(tokenizer_object=raw, **ROLES)


MAKERS = {
    "bytes": _byte_level,
    "merged": lambda: _byte_level([("<", "/"), ("</", "s"), ("</s", ">")]),
    "unigram": _unigram,
    "words": _words,
    "slow": ByT5Tokenizer,
}


def _roles(tokenizer: Any) -> set[int]:
    names = ("bos", "eos", "sep", "cls", "pad", "mask")
    return {getattr(tokenizer, f"{name}_token_id") for name in names} - {None, tokenizer.unk_token_id}


def _inside(tokenizer: Any, ids: Sequence[int]) -> set[int]:
    """The special ids between the template's own."""
    return _roles(tokenizer) & set(ids[1 if ids[0] == tokenizer.bos_token_id else 0 : -1])


@pytest.mark.parametrize("kind", MAKERS)
def test_special_tokens_in_a_text_are_text(kind: str) -> None:
    tokenizer = MAKERS[kind]()
    texts = [f"a {token} film" for token in tokenizer.convert_ids_to_tokens(sorted(_roles(tokenizer)))]
    texts += ["</s>" if kind != "slow" else "a</s>b", "</s></s> a</s> b", "a film"]  # ByT5 warns of </s> at the end
    before = tokenizer(texts)["input_ids"]
    assert any(_inside(tokenizer, ids) for ids in before)  # why this module is there
    found = encode(tokenizer, [texts], "row", range(9))
    assert not any(_inside(tokenizer, ids) for ids in found["input_ids"])
    assert found["input_ids"][-1] == before[-1]
    assert tokenizer(texts)["input_ids"] == before  # the tokenizer itself is as it was
    pairs = encode(tokenizer, [texts, texts[::-1]], "row", range(9), truncation=True, max_length=12)["input_ids"]
    ends = [ids.count(tokenizer.eos_token_id) for ids in pairs]
    assert ends == [tokenizer("a", "a")["input_ids"].count(tokenizer.eos_token_id)] * len(texts)
    assert encode(tokenizer, [["a </s>"]], "row", range(9))["input_ids"][0][:-1] != tokenizer("a ")["input_ids"][:-1]
    bare = encode(tokenizer, [texts], "row", range(9), add_special_tokens=False)["input_ids"]
    assert not {i for ids in bare for i in ids} & _roles(tokenizer)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("settings", [{}, {"add_special_tokens": False}, {"truncation": True, "max_length": 9}])
def test_other_texts_keep_their_ids(kind: str, settings: dict[str, Any]) -> None:
    tokenizer = MAKERS[kind]()
    tokenizer.add_tokens(["<item_1>"])
    tokenizer.add_tokens(["[E1]"], special_tokens=True)  # a mark around an entity
    texts = [*PLAIN, "a <item_1> b", "a [E1] b"]
    for columns in ([texts], [texts, texts[::-1]]):
        own = tokenizer(*columns, return_attention_mask=False, **settings)
        assert encode(tokenizer, columns, "row", range(9), **settings) == dict(own)
        item = tokenizer.convert_tokens_to_ids("<item_1>")
        assert settings.get("truncation") or item in own["input_ids"][-2]
        if kind != "slow" and not settings:
            mixed = encode(tokenizer, [["a <item_1> [E1] </s> b"]], "row", range(9))["input_ids"][0]
            assert {item, tokenizer.convert_tokens_to_ids("[E1]")} < set(mixed) and not _inside(tokenizer, mixed)


def test_a_bert_tokenizer_reads_brackets(tokenizer: Any) -> None:
    found = encode(tokenizer, [["[SEP] x [MASK]"], ["[sep]"]], "row", range(9))
    assert tokenizer.convert_ids_to_tokens(found["input_ids"][0]) == [
        *["[CLS]", "[", "sep", "]", "x", "[", "mask", "]", "[SEP]", "[", "sep", "]", "[SEP]"]
    ]
    assert set(found) == {"input_ids", "token_type_ids"}


def test_a_form_that_the_normalizer_turns_into_a_special_token_is_text() -> None:
    tokenizer = _unigram()
    wide = "a \uff1c/s\uff1e film"  # full-width brackets
    assert _inside(tokenizer, tokenizer(wide)["input_ids"])
    assert not _inside(tokenizer, encode(tokenizer, [[wide]], "row", range(9))["input_ids"][0])


def test_a_padding_token_that_is_an_ordinary_character_stays_one() -> None:
    tokenizer = _byte_level()
    tokenizer.pad_token = "!"
    assert encode(tokenizer, [["hi!", "a"]], "row", range(9))["input_ids"] == tokenizer(["hi!", "a"])["input_ids"]


def test_a_slow_tokenizer_that_cannot_is_refused_in_one_line() -> None:
    tokenizer = ByT5Tokenizer()
    tokenizer.add_tokens(["<item_1>"])
    with pytest.raises(UserError, match=r"^task\.text: row 1 contains '</s>', and this tokenizer cannot read its own"):
        encode(tokenizer, [["fine", "a </s> <item_1>"]], "row", range(9))
