"""A checkpoint's tokenizer: padding, longest input, and a one-line error for damaged files or missing packages."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from loralab.backbones.source import Source
from loralab.backbones.tokenizer import load_tokenizer
from loralab.errors import UserError
from tests.backbones.checkpoints import find, take
from tests.families import FAMILIES, save_checkpoint


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_tokenizer_without_pad_pads_with_eos_on_the_right(name: str, tmp_path: Path) -> None:
    directory = save_checkpoint(FAMILIES[name]().base_model, tmp_path / name)
    plain = PreTrainedTokenizerFast(
        tokenizer_file=str(directory / "tokenizer.json"), eos_token="</s>", padding_side="left"
    )
    plain.save_pretrained(directory)
    backbone = take(find(directory, tmp_path))
    assert backbone.tokenizer.pad_token_id == backbone.model.config.pad_token_id == 2
    texts = ["w7 w8 w9 w10 w11 w12", "w20 w21 w22"]
    both = backbone.tokenizer(texts, padding=True, return_tensors="pt")
    assert both["attention_mask"][1].tolist() == [1] * 5 + [0] * 3
    plain = PreTrainedTokenizerFast(tokenizer_file=str(directory / "tokenizer.json"))
    plain.save_pretrained(directory)
    with pytest.raises(UserError, match=r"^model.path: .*neither a pad nor an eos token"):
        load_tokenizer(find(directory, tmp_path))


def test_tokenizer_knows_the_longest_input(checkpoint: Callable[..., Source]) -> None:
    longest = {family: load_tokenizer(checkpoint(family)).model_max_length for family in FAMILIES}
    assert longest["bert"] == longest["gpt2"] == longest["opt"] == 64
    assert longest["roberta"] == longest["mpnet"] == 62
    assert longest["t5"] > 10**6
    for family in ("bert", "roberta", "mpnet", "opt", "gpt2", "distilbert", "electra", "deberta_v2"):
        backbone = take(checkpoint(family))
        text = " ".join(["w9"] * 100)
        with torch.no_grad():
            backbone.model(**backbone.tokenizer(text, truncation=True, return_tensors="pt"))


def test_damaged_tokenizer_is_one_line(bert: Path, tmp_path: Path) -> None:
    (bert / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(UserError, match=r"^model.path: .*tokenizer cannot be loaded") as info:
        load_tokenizer(find(bert, tmp_path))
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(("module", "pip"), [("sentencepiece", "sentencepiece"), ("google.protobuf", "protobuf")])
def test_sentencepiece_tokenizer_names_the_package_it_lacks(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, pip: str
) -> None:
    (bert / "tokenizer.json").unlink()
    (bert / "spm.model").write_bytes(b"\n\x0e")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"^model.path: .*needs SentencePiece; run: pip install .*{pip}"):
        load_tokenizer(find(bert, tmp_path))
