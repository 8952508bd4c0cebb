"""The longest text of each family: its position tables serve so many tokens, and not one more."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

from loralab.backbones.positions import longest_answer, longest_text
from loralab.errors import UserError
from loralab.runs.run import run
from tests.families import FAMILIES, MORE_FAMILIES, save_checkpoint
from tests.small_runs import config

SIZES = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 66,
}
BART = {
    "vocab_size": 100,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 66,
}
OTHERS: dict[str, tuple[int, dict[str, Any]]] = {
    "camembert": (64, SIZES),
    "longformer": (64, SIZES | {"attention_window": 8}),
    "esm": (64, SIZES | {"pad_token_id": 1, "mask_token_id": 4}),
    "ibert": (64, SIZES),
    "xlm-roberta-xl": (64, SIZES),
    "albert": (66, SIZES | {"embedding_size": 16}),
    "bart": (66, BART),
    "mbart": (66, BART),
    "openai-gpt": (64, {"vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "mpt": (64, {"vocab_size": 100, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64}),
}


def build(model_type: str, settings: dict[str, Any]) -> Any:
    with torch.random.fork_rng():
        ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
        made = AutoConfig.for_model(model_type, **{**ids, **settings}, num_labels=3)
        return AutoModelForSequenceClassification.from_config(made).eval()


def fits(model: Any, tokens: int) -> bool:
    ids = torch.full((1, tokens), 9)
    ids[0, -1] = 2
    try:
        with torch.no_grad():
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
    except (IndexError, RuntimeError):
        return False
    return True


@pytest.mark.parametrize("family", OTHERS)
def test_the_longest_text_works_and_one_token_more_does_not(family: str) -> None:
    longest, settings = OTHERS[family]
    model = build(family, settings)
    assert longest_text(model) == longest
    assert fits(model, longest)
    assert not fits(model, longest + 1)


@pytest.mark.parametrize("family", ["bert", "roberta", "mpnet", "opt", "gpt2", "distilbert", "electra"])
def test_the_tables_of_the_known_families_give_the_same(family: str) -> None:
    model = FAMILIES[family]()
    assert longest_text(model) == (62 if family in ("roberta", "mpnet") else 64)
    assert fits(model, 62)


@pytest.mark.parametrize("family", ["t5", "llama", "bloom", "gpt_neox"])
def test_relative_and_rotary_positions_have_no_table(family: str) -> None:
    assert longest_text((FAMILIES | MORE_FAMILIES)[family]()) is None


def test_tables_of_images_do_not_limit_a_text() -> None:
    text = {**SIZES, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8}
    vision = {**SIZES, "image_size": 8, "patch_size": 4}
    assert longest_text(build("gemma3", {"text_config": text, "vision_config": vision})) is None


def test_an_answer_is_limited_by_the_decoders_table_alone() -> None:
    led = {"max_encoder_position_embeddings": 80, "max_decoder_position_embeddings": 40, "attention_window": 8}
    settings = {name: value for name, value in BART.items() if name != "max_position_embeddings"} | led
    model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model("led", **settings))
    assert (longest_text(model), longest_answer(model)) == (80, 40)


@pytest.mark.parametrize(("family", "longest", "target"), [("camembert", 64, "*query"), ("bart", 66, "*q_proj")])
def test_a_longer_text_is_one_line_before_training(family: str, longest: int, target: str, tmp_path: Path) -> None:
    folder = save_checkpoint(build(family, OTHERS[family][1]), tmp_path / family)
    mine = ["model.name=mine", f"model.path={folder}", f"train.max_length={longest + 1}", f"lora.targets=['{target}']"]
    with pytest.raises(UserError, match=rf"^train\.max_length: got {longest + 1}; mine takes at most {longest} tokens"):
        run(config(tmp_path / "store", *mine))
