"""Virtual tokens that loralab saves have the same logits when loaded by PEFT and by loralab."""

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from loralab.backbones.families import linear_maps
from loralab.errors import UserError
from loralab.methods import lora, prompts
from loralab.methods.formats import peft_prompt
from loralab.methods.formats.peft_lora import load_adapter, save_peft
from tests.adapted import LORA, frozen, logits, shake
from tests.families import FAMILIES
from tests.methods.formats.damaged_folders import CASES
from tests.methods.prompted import (
    DECODERS,
    KINDS,
    PEFT,
    PEFT_GENERATES,
    TOKENS,
    attach,
    decoder,
    head_of,
    left_padded,
    of_peft,
    prompted,
    row,
)

pytestmark = PEFT

MLP = {"prefix": 8, "prompt": None, "p_tuning": 8}
kinds = pytest.mark.parametrize("kind", KINDS)


def trained(family: str, kind: prompts.Kind) -> Any:
    """With an MLP where the kind can have one."""
    model = prompted(family, kind, hidden=MLP[kind])
    shake(model)
    return model


def save(model: Any, directory: Path) -> Path:
    peft_prompt.save(model, directory, head=head_of(model), base_model="somewhere/backbone")
    return directory


@kinds
@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "gpt2", "opt", "llama"])
def test_peft_gives_the_same_logits(kind: prompts.Kind, family: str, tmp_path: Path) -> None:
    from peft import PeftModel

    model = trained(family, kind)
    theirs = of_peft(PeftModel.from_pretrained(FAMILIES[family](), str(save(model, tmp_path))))
    if family not in DECODERS or kind == "prefix":
        torch.testing.assert_close(logits(theirs), logits(model), rtol=0, atol=1e-5)
    text = row(left_padded(), 1)  # with prompts PEFT's decoders see one text right
    found, wanted = theirs(**text).logits, model(**text).logits
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert not torch.allclose(wanted, frozen(family)(**text).logits, atol=1e-2)


@kinds
def test_the_files_have_the_names_and_shapes_of_pefts_own(kind: prompts.Kind, tmp_path: Path) -> None:
    from peft import PeftModel
    from safetensors.torch import load_file

    ours = save(trained("bert", kind), tmp_path / "ours")
    theirs: Any = PeftModel.from_pretrained(FAMILIES["bert"](), str(ours))
    theirs.save_pretrained(tmp_path / "theirs", save_embedding_layers=False)
    first, second = (load_file(tmp_path / who / "adapter_model.safetensors") for who in ("ours", "theirs"))
    assert {n: t.shape for n, t in first.items()} == {n: t.shape for n, t in second.items()}
    assert all(torch.equal(first[name], second[name]) for name in first)
    config = [json.loads((tmp_path / who / "adapter_config.json").read_text()) for who in ("ours", "theirs")]
    assert config[0].keys() <= config[1].keys()


@pytest.mark.skipif(not PEFT_GENERATES, reason="PEFT's prompts do not reach this release's generate")
@kinds
def test_peft_continues_texts_alike(kind: prompts.Kind, tmp_path: Path) -> None:
    from peft import PeftModel

    model = attach(decoder("gpt2"), kind, hidden=MLP[kind])
    shake(model)
    theirs: Any = PeftModel.from_pretrained(decoder("gpt2"), str(save(model, tmp_path)))
    text = row(left_padded(), 0)
    settings: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False}
    assert torch.equal(theirs.generate(**text, **settings), model.generate(**text, **settings))


@kinds
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_loading_gives_back_the_logits_and_trains_the_tokens_no_more(
    kind: prompts.Kind, family: str, tmp_path: Path
) -> None:
    model, other = trained(family, kind), prompted(family, kind, hidden=MLP[kind], seed=9)
    assert not torch.allclose(logits(other), logits(model), atol=1e-2)
    peft_prompt.load(other, save(model, tmp_path))
    torch.testing.assert_close(logits(other), logits(model), rtol=0, atol=1e-6)
    assert not any(p.requires_grad for p in other.prompt.parameters())
    save(other, tmp_path / "again")
    name = "adapter_model.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_lora_and_a_prefix_are_two_adapters_that_peft_loads_one_after_the_other(family: str, tmp_path: Path) -> None:
    """The prefix in a folder of LoRA's; the head is in both, so that each is whole."""
    from peft import PeftModel

    def both(seed: int) -> Any:
        model = frozen(family)
        lora.attach(model, linear_maps(model), head=head_of(model), **{**LORA, "seed": seed})
        return attach(model, "prefix", seed=seed)

    model, other = both(0), both(1)
    shake(model)
    save_peft(model, tmp_path, head=head_of(model), base_model="somewhere/backbone")
    save(model, tmp_path / "prefix")
    peft_prompt.load(other, tmp_path / "prefix")
    load_adapter(other, tmp_path)
    torch.testing.assert_close(logits(other), logits(model), rtol=0, atol=1e-5)
    merged: Any = PeftModel.from_pretrained(FAMILIES[family](), str(tmp_path))
    theirs = of_peft(PeftModel.from_pretrained(merged.merge_and_unload(), str(tmp_path / "prefix")))
    torch.testing.assert_close(logits(theirs), logits(model), rtol=0, atol=1e-5)


def test_what_does_not_fit_is_one_line_and_changes_nothing(tmp_path: Path) -> None:
    files = {kind: save(trained("bert", kind), tmp_path / kind) for kind in KINDS}
    model = prompted("bert", "prefix", tokens=TOKENS + 1)
    before = logits(model)
    cases = [
        (files["prefix"], f"num_virtual_tokens: got {TOKENS}; the model has {TOKENS + 1}"),
        (files["prompt"], "its adapter is PROMPT_TUNING, the model's PREFIX_TUNING"),
        (tmp_path, "no adapter_config.json there"),
    ]
    for directory, message in cases:
        with pytest.raises(UserError, match=message):
            peft_prompt.load(model, directory)
    adapter = files["prefix"] / "adapter_config.json"
    adapter.write_text(json.dumps({**json.loads(adapter.read_text()), "peft_type": "LORA"}))
    with pytest.raises(UserError, match="a LORA adapter; virtual tokens are PREFIX_TUNING"):
        peft_prompt.load(model, files["prefix"])
    adapter.write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        peft_prompt.load(model, files["prefix"])
    assert torch.equal(logits(model), before)
    assert all(p.requires_grad for p in model.prompt.parameters())


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "tokens": ({"num_virtual_tokens": TOKENS + 1}, f"num_virtual_tokens: got {TOKENS + 1}; the model has {TOKENS}"),
    "no tokens": ({"num_virtual_tokens": None}, "has no num_virtual_tokens; allowed: a whole number from 1"),
    "tokens in text": ({"num_virtual_tokens": "5"}, 'num_virtual_tokens: got "5"; allowed: a whole number from 1'),
    "heads": ({"num_attention_heads": 2}, "num_attention_heads: got 2; the model has 4"),
    "layers": ({"num_layers": 4}, "num_layers: got 4; the model has 2"),
    "two stacks": ({"num_transformer_submodules": 2}, "num_transformer_submodules: got 2; allowed: 1: "),
    "head": ({"modules_to_save": "classifier"}, 'modules_to_save: got "classifier"; allowed: a list of names'),
    "no head": (
        {"task_type": None, "modules_to_save": ["score"]},
        r"classifier.\w+: \(.*\) in the file, none in the m",
    ),
    "unknown": ({"tomorrow": 0.5}, "tomorrow: got 0.5, which is not supported"),
    "of LoRA": ({"use_dora": True}, "use_dora: got true, which is not supported"),
    "type": ({"peft_type": ["LORA"]}, r'a \["LORA"\] adapter; virtual tokens are PREFIX_TUNING'),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_field_that_means_something_else_is_refused_by_name(name: str, tmp_path: Path) -> None:
    """Vectors of one shape can be read in other layers and heads."""
    fields, message = WRONG[name]
    model = trained("bert", "prefix")
    config = save(model, tmp_path) / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | fields))
    before = logits(model)
    with pytest.raises(UserError, match=message) as error:
        peft_prompt.load(model, tmp_path)
    assert "\n" not in str(error.value) and str(error.value).startswith(f"{tmp_path}: ")
    assert torch.equal(logits(model), before)


@kinds
def test_every_field_of_pefts_virtual_tokens_is_known(kind: prompts.Kind) -> None:
    import peft

    configs = (peft.PrefixTuningConfig, peft.PromptTuningConfig, peft.PromptEncoderConfig)
    config = dict(zip(("prefix", "prompt", "p_tuning"), configs, strict=True))[kind]
    fields = {field.name for field in dataclasses.fields(config)}
    assert fields == peft_prompt.TABLES[peft_prompt.TYPES[kind]].keys()


@kinds
def test_what_peft_saves_is_read(kind: prompts.Kind, tmp_path: Path) -> None:
    """PEFT's own folder, with all its fields and a head of two possible names."""
    from peft import PeftModel

    ours = save(trained("bert", kind), tmp_path / "ours")
    theirs: Any = PeftModel.from_pretrained(FAMILIES["bert"](), str(ours))
    with torch.no_grad():
        for parameter in theirs.prompt_encoder.parameters():
            parameter += 0.1
    theirs.save_pretrained(tmp_path / "theirs", save_embedding_layers=False)
    model = prompted("bert", kind, hidden=MLP[kind])
    peft_prompt.load(model, tmp_path / "theirs")
    again = PeftModel.from_pretrained(FAMILIES["bert"](), str(tmp_path / "theirs"))
    torch.testing.assert_close(logits(model), logits(of_peft(again)), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if ": " in name])
def test_a_damaged_folder_is_one_line_or_loads(name: str, tmp_path: Path) -> None:
    """The generator of LoRA's folders, where it changes files and tensors."""
    folder = save(trained("bert", "prefix"), tmp_path / "adapter")
    with contextlib.suppress(StopIteration):  # a tensor of LoRA's alone
        CASES[name](folder)
    model = prompted("bert", "prefix", hidden=None)
    try:
        peft_prompt.load(model, folder)
    except UserError as error:
        line = str(error)
        assert "\n" not in line, line
        assert line.startswith(f"{folder}: "), line
