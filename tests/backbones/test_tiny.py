"""The backbone without a download: fixed weights, one token per byte."""

from pathlib import Path
from typing import Any

import pytest
import torch

from loralab.backbones import tiny
from loralab.backbones.load import Backbone, load, load_generator
from loralab.backbones.source import locate

IDENTITY = "164c25e105c14b7b"  # of the first tiny: it is in the hash of every run on it


def take(seed: int, labels: int = 2) -> Backbone:
    source = locate("tiny", package=None, hub=None, revision=None, path=None, cache=Path("unused"))
    assert (source.origin, source.family, source.width, source.directory) == ("random", "bert", 64, None)
    return load(
        source,
        labels=labels,
        regression=False,
        dropout=0.0,
        attention="auto",
        dtype=torch.float32,
        device="cpu",
        seed=seed,
    )


def test_backbone_is_the_same_for_every_seed_and_only_the_head_differs() -> None:
    one, other = take(1), take(2, labels=2)
    assert one.head == ("classifier",)
    for name, parameter in one.model.named_parameters():
        same = torch.equal(parameter, other.model.get_parameter(name))
        assert same == (name != "classifier.weight"), name
        assert parameter.requires_grad == name.startswith("classifier.")


def test_number_of_classes_leaves_the_backbone_alone() -> None:
    two, six = take(1), take(1, labels=6)
    for name, parameter in two.model.bert.named_parameters():
        assert torch.equal(parameter, six.model.bert.get_parameter(name)), name


def test_identity_follows_the_architecture() -> None:
    assert tiny.identity() == tiny.identity()
    assert len(tiny.identity()) == 16
    before = tiny.identity()
    width = tiny.ARCHITECTURE["hidden_size"]
    try:
        tiny.ARCHITECTURE["hidden_size"] = 32
        assert tiny.identity() != before
    finally:
        tiny.ARCHITECTURE["hidden_size"] = width


def test_every_text_is_bytes_between_cls_and_sep() -> None:
    tokenizer = tiny.make_tokenizer()
    ids = tokenizer("Ab é☃")["input_ids"]
    assert len(ids) == 2 + len("Ab é☃".encode())
    assert tokenizer.decode(ids, skip_special_tokens=True) == "ab é☃"
    assert tokenizer.unk_token_id not in tokenizer(bytes(range(256)).decode("latin-1"))["input_ids"]
    pair = tokenizer("a", "bc")
    assert pair["token_type_ids"] == [0, 0, 0, 1, 1, 1]
    assert len(tokenizer("x" * 1000, truncation=True)["input_ids"]) == tiny.ARCHITECTURE["max_position_embeddings"]
    assert max(tokenizer.get_vocab().values()) < tiny.ARCHITECTURE["vocab_size"]


def test_tokenizer_survives_saving(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    backbone = take(0)
    backbone.tokenizer.save_pretrained(tmp_path)
    backbone.model.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again(["good", "ünïcode"])["input_ids"] == backbone.tokenizer(["good", "ünïcode"])["input_ids"]


def test_texts_that_differ_get_different_features() -> None:
    backbone = take(0)
    batch = backbone.tokenizer(["a fine film", "a dull film"], padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = backbone.model(**batch).logits
    assert logits.shape == (2, 2)
    assert (logits[0] - logits[1]).abs().max() > 1e-4


@pytest.mark.parametrize(("name", "family"), [("tiny_decoder", "llama"), ("tiny_seq2seq", "t5")])
def test_a_tiny_generator_is_the_same_every_time_and_ties_its_embeddings(name: str, family: str) -> None:
    source = locate(name, package=None, hub=None, revision=None, path=None, cache=Path("unused"))
    assert (source.origin, source.family, source.width, source.directory) == ("random", family, 64, None)
    one, other = (
        load_generator(source, dropout=0.0, attention="auto", dtype=torch.float32, device="cpu") for _ in range(2)
    )
    assert all(torch.equal(p, other.model.get_parameter(key)) for key, p in one.model.named_parameters())
    assert one.model.get_output_embeddings().weight is one.model.get_input_embeddings().weight
    assert one.seq2seq is (family == "t5")
    assert one.tokenizer.eos_token_id == one.model.generation_config.eos_token_id


def test_the_generators_tokenizers_keep_every_byte_and_only_one_adds_eos() -> None:
    text = "Ab é☃\n"
    for name, added in (("tiny_decoder", []), ("tiny_seq2seq", [1])):
        tokenizer = tiny.make_tokenizer(name)
        ids = tokenizer(text)["input_ids"]
        assert ids[len(text.encode()) :] == added
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        assert max(tokenizer.get_vocab().values()) < tiny.architecture(name)["vocab_size"]


@pytest.mark.parametrize("name", ["tiny_decoder", "tiny_seq2seq"])
def test_a_tiny_generator_classifies_too(name: str) -> None:
    source = locate(name, package=None, hub=None, revision=None, path=None, cache=Path("unused"))
    settings: dict[str, Any] = {"regression": False, "dropout": 0.0, "attention": "auto", "dtype": torch.float32}
    one, other = (load(source, labels=2, device="cpu", seed=seed, **settings) for seed in (1, 2))
    assert one.head == other.head and len(one.head) == 1
    for key, parameter in one.model.named_parameters():
        assert parameter.requires_grad is key.startswith(one.head[0])
        assert parameter.requires_grad or torch.equal(parameter, other.model.get_parameter(key))


def test_stored_runs_know_tiny_by_what_it_was() -> None:
    assert len({tiny.identity(name) for name in tiny.NAMES}) == len(tiny.NAMES)
    assert tiny.identity() == IDENTITY
