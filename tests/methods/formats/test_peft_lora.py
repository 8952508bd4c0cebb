"""PEFT loads adapters of loralab, and loralab those of PEFT, with the same logits."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from loralab.backbones.families import linear_maps
from loralab.errors import UserError
from loralab.methods.formats.peft_lora import attach_peft, load_adapter, save_peft
from loralab.methods.lora import attach, lora_modules, merge
from loralab.serving.adapters import read_adapter
from loralab.serving.switch import Switch
from tests.adapted import LORA, adapt, frozen, head_of, logits, shake
from tests.families import FAMILIES
from tests.generators import GENERATORS, pairs

# PEFT 0.21 reads an attribute that transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

EMBEDDINGS = {
    "bert": "word_embeddings",
    "opt": "embed_tokens",
    "gpt2": "wte",
    "t5": "embed_tokens",
}


def in_peft(family: str, directory: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(FAMILIES[family](), str(directory))


def save(model: Any, directory: Path) -> Path:
    save_peft(model, directory, head=head_of(model), base_model="somewhere/backbone")
    return directory


def check_in_peft(model: Any, family: str, directory: Path) -> None:
    """PEFT gives the same logits, and every tensor of the file found its place."""
    from safetensors.torch import load_file

    save(model, directory)
    ours, theirs = logits(model), in_peft(family, directory)
    assert (ours - logits(FAMILIES[family]())).abs().max() > 1e-2, "the adapter does something"
    torch.testing.assert_close(logits(theirs), ours, rtol=0, atol=1e-5)
    placed = {(tuple(p.shape), p.sum().item()) for p in theirs.state_dict().values()}
    for name, value in load_file(directory / "adapter_model.safetensors").items():
        assert (tuple(value.shape), value.sum().item()) in placed, name


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("targets", [["q", "v"], ["all"]], ids=["qv", "all"])
def test_peft_gives_the_same_logits(family: str, targets: list[str], tmp_path: Path) -> None:
    model = adapt(family, targets=targets)
    shake(model)
    check_in_peft(model, family, tmp_path)


@pytest.mark.parametrize("family", ["gpt2", "deberta_v2", "t5"])
@pytest.mark.parametrize("bias", ["lora", "all"])
def test_peft_gives_the_same_logits_with_trained_biases(family: str, bias: str, tmp_path: Path) -> None:
    model = adapt(family, bias=bias)
    shake(model)
    check_in_peft(model, family, tmp_path)


@pytest.mark.parametrize("scaling", ["alpha/r", "alpha/sqrt_r", "constant"])
@pytest.mark.parametrize("family", ["bert", "gpt_neox"])
def test_peft_keeps_every_rule_of_scaling_at_unequal_ranks(family: str, scaling: str, tmp_path: Path) -> None:
    model = adapt(family, targets=["all"], scaling=scaling, alpha=1.7, rank=3, rank_pattern={"q": 5, "mlp": 2})
    shake(model)
    check_in_peft(model, family, tmp_path)


@pytest.mark.parametrize(("family", "table"), EMBEDDINGS.items())
def test_peft_gives_the_same_logits_with_an_adapted_embedding(family: str, table: str, tmp_path: Path) -> None:
    model = adapt(family, targets=["q", table])
    shake(model)
    check_in_peft(model, family, tmp_path)


def test_peft_loads_a_head_without_lora(tmp_path: Path) -> None:
    model = frozen("roberta")
    shake(model)
    check_in_peft(model, "roberta", tmp_path)


@pytest.mark.parametrize("family", GENERATORS)
def test_peft_gives_the_same_logits_of_a_model_that_generates(family: str, tmp_path: Path) -> None:
    from peft import PeftModel

    def next_tokens(model: Any) -> torch.Tensor:
        """In fp64: in fp32 the random T5 makes 1e-5 of a rounding."""
        batch = pairs(3, seq2seq=family == "t5")(np.arange(3))
        del batch["labels"]
        with torch.no_grad():
            found: torch.Tensor = model.double().eval()(**batch).logits
        return found

    model = GENERATORS[family]()
    model.requires_grad_(False)
    attach(model, linear_maps(model), head=(), **LORA)
    shake(model)
    save_peft(model, tmp_path, head=(), base_model="somewhere/backbone")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["task_type"] == ("SEQ_2_SEQ_LM" if family == "t5" else "CAUSAL_LM")
    theirs = PeftModel.from_pretrained(GENERATORS[family](), str(tmp_path))
    assert hasattr(theirs, "base_model_prepare_inputs_for_generation"), "PEFT's own class of models that generate"
    ours = next_tokens(model)
    assert (ours - next_tokens(GENERATORS[family]())).abs().max() > 1e-2, "the adapter does something"
    torch.testing.assert_close(next_tokens(theirs), ours, rtol=0, atol=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_classifier_of_any_family_says_so(family: str, tmp_path: Path) -> None:
    save(adapt(family), tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["task_type"] == "SEQ_CLS"


def test_ranks_and_alphas_name_one_module_each(tmp_path: Path) -> None:
    save(adapt("bert", targets=["all"], rank_pattern={"layer.0.attention.self.query": 2}), tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    name = r"^bert\.encoder\.layer\.0\.attention\.self\.query"
    assert (config["r"], config["rank_pattern"]) == (4, {name: 2})
    assert (config["lora_alpha"], config["alpha_pattern"]) == (6, {})


def test_parts_of_a_fused_projection_are_one_adapter_of_the_summed_rank(tmp_path: Path) -> None:
    model = adapt("gpt_neox", targets=["q", "v"], rank=3)
    shake(model)
    peft = in_peft("gpt_neox", save(model, tmp_path))
    for name, module in lora_modules(model).items():
        layer = peft.base_model.model.get_submodule(name)
        assert layer.r["default"] == 6
        torch.testing.assert_close(layer.get_delta_weight("default"), module.delta(), rtol=0, atol=1e-6)


def test_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    for run in ("one", "two"):
        model = adapt("gpt2", bias="all")
        shake(model)
        save(model, tmp_path / run)
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_what_is_saved_does_not_depend_on_merging(tmp_path: Path) -> None:
    model = adapt("bert", bias="lora")
    shake(model)
    save(model, tmp_path / "before")
    merge(model)
    save(model, tmp_path / "after")
    file = "adapter_model.safetensors"
    assert (tmp_path / "before" / file).read_bytes() == (tmp_path / "after" / file).read_bytes()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_adapter_comes_back_bit_for_bit(family: str, tmp_path: Path) -> None:
    first, second = adapt(family, rank=2), adapt(family, rank=2, seed=1)
    shake(first)
    load_adapter(second, save(first, tmp_path))
    trained = dict(second.named_parameters())
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, trained[name]), name
    assert torch.equal(logits(first), logits(second))


def test_trained_biases_embeddings_and_unequal_blocks_come_back(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"targets": ["q", "v", "wte"], "bias": "all", "rank_pattern": {"q": 7}}
    first, second = adapt("gpt2", **settings), adapt("gpt2", **settings, seed=1)
    shake(first)
    load_adapter(second, save(first, tmp_path))
    torch.testing.assert_close(logits(second), logits(first), rtol=0, atol=1e-6)


def test_an_adapter_loads_into_a_merged_model(tmp_path: Path) -> None:
    first, second = adapt("bert"), adapt("bert", seed=1)
    shake(first)
    shake(second, seed=2)
    merge(second)
    load_adapter(second, save(first, tmp_path))
    assert all(module.merged for module in lora_modules(second).values())
    torch.testing.assert_close(logits(second), logits(first), rtol=0, atol=1e-5)


@pytest.mark.parametrize("bias", ["none", "lora_only", "all"])
@pytest.mark.parametrize(
    ("family", "settings"),
    [
        (
            "bert",
            {
                "target_modules": ["query", "dense", "word_embeddings"],
                "alpha_pattern": {"query": 2},
                "use_rslora": True,
            },
        ),
        ("gpt2", {"target_modules": ["c_attn", "c_proj"], "rank_pattern": {"c_attn": 5}, "fan_in_fan_out": True}),
        ("t5", {"target_modules": ["q", "wo"], "alpha_pattern": {r"0\.layer\.0.*q": 3}}),
    ],
    ids=["bert", "gpt2", "t5"],
)
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning")  # PEFT's note on an adapted table
def test_an_adapter_made_by_peft_loads_into_the_same_targets(
    family: str, settings: dict[str, Any], bias: Any, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    head = head_of(frozen(family))
    config = LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=9, bias=bias, modules_to_save=[*head], **settings)
    theirs = get_peft_model(FAMILIES[family](), config)
    shake(theirs)
    theirs.save_pretrained(tmp_path)
    ours = adapt(
        family,
        targets=settings["target_modules"],
        rank_pattern=settings.get("rank_pattern", {}),
        bias=bias.removesuffix("_only"),
    )
    load_adapter(ours, tmp_path)
    torch.testing.assert_close(logits(ours), logits(theirs), rtol=0, atol=1e-5)
    trainable = sum(p.numel() for p in ours.parameters() if p.requires_grad)
    assert trainable == theirs.get_nb_trainable_parameters()[0]
    save_peft(ours, tmp_path / "again", head=head, base_model="somewhere")
    torch.testing.assert_close(logits(in_peft(family, tmp_path / "again")), logits(theirs), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("family", "target"), [("bert", "query"), ("gpt2", "c_attn")])
def test_the_rule_alpha_over_root_r_is_pefts_rslora(family: str, target: str, tmp_path: Path) -> None:
    """The factors are unchanged in both directions: B includes no scaling."""
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file

    config = LoraConfig(
        task_type="SEQ_CLS",
        r=5,
        lora_alpha=7,
        use_rslora=True,
        target_modules=[target],
        fan_in_fan_out=family == "gpt2",
    )
    theirs = get_peft_model(FAMILIES[family](), config)
    shake(theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = adapt(family, targets=[target], rank=5, alpha=7.0, scaling="alpha/sqrt_r")
    load_adapter(ours, tmp_path / "theirs")
    torch.testing.assert_close(logits(ours), logits(theirs), rtol=0, atol=1e-5)
    file = load_file(tmp_path / "theirs" / "adapter_model.safetensors")
    again = load_file(save(ours, tmp_path / "ours") / "adapter_model.safetensors")
    assert all(torch.equal(again[name], value) for name, value in file.items() if ".lora_" in name)
    torch.testing.assert_close(logits(in_peft(family, tmp_path / "ours")), logits(theirs), rtol=0, atol=1e-5)
    plain = adapt(family, targets=[target], rank=5, alpha=7.0)
    with torch.no_grad():
        for parameter, value in zip(plain.parameters(), ours.parameters(), strict=True):
            parameter.copy_(value)
    assert (logits(plain) - logits(theirs)).abs().max() > 1e-3, "alpha / r is another rule"


def test_an_adapter_that_is_not_plain_lora_is_refused(tmp_path: Path) -> None:
    from peft import IA3Config, LoraConfig, get_peft_model

    dora = LoraConfig(task_type="SEQ_CLS", target_modules=["query"], use_dora=True)
    get_peft_model(FAMILIES["bert"](), dora).save_pretrained(tmp_path / "dora")
    with pytest.raises(UserError, match=r"lora_magnitude_vector: \(32,\) in the file, none in the model"):
        load_adapter(adapt("bert", targets=["query"]), tmp_path / "dora")
    ia3 = IA3Config(task_type="SEQ_CLS", target_modules=["query"], feedforward_modules=[])
    get_peft_model(FAMILIES["bert"](), ia3).save_pretrained(tmp_path / "ia3")
    with pytest.raises(UserError, match="a IA3 adapter; only LORA"):
        load_adapter(adapt("bert"), tmp_path / "ia3")


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    save(adapt("roberta"), tmp_path)
    with pytest.raises(UserError, match=r"it does not fit the model: .*bert.encoder.*: none in the file, \(4, 32\) in"):
        load_adapter(adapt("bert"), tmp_path)


def test_an_adapter_of_another_shape_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    save(adapt("bert", rank=2), tmp_path)
    model = adapt("bert")
    before = logits(model)
    with pytest.raises(UserError, match=r"lora_A.weight: \(2, 32\) in the file, \(4, 32\) in the model"):
        load_adapter(model, tmp_path)
    assert torch.equal(logits(model), before)


def test_an_update_outside_the_models_blocks_is_refused(tmp_path: Path) -> None:
    first = adapt("gpt2", targets=["k", "v"])
    shake(first)
    save(first, tmp_path)
    with pytest.raises(UserError, match=r"its update of 'transformer.h.0.attn.c_attn' touches outputs"):
        load_adapter(adapt("gpt2", targets=["q", "v"]), tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no adapter_config.json there"):
        load_adapter(adapt("bert"), tmp_path)


def test_interchange_does_not_import_peft() -> None:
    code = "import sys, loralab.methods.formats.peft_lora; sys.exit(bool({'peft', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_bf16_backbone_saves_an_fp32_adapter(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = adapt("bert")
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding) and not name.startswith("classifier"):
            module.to(torch.bfloat16)
    save(model, tmp_path)
    assert {t.dtype for t in load_file(tmp_path / "adapter_model.safetensors").values()} == {torch.float32}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_copy_of_output_embeddings_beside_their_adapted_table_stays_as_it_is(tmp_path: Path) -> None:
    """With save_embedding_layers PEFT writes both, also where the model ties them."""
    from peft import LoraConfig, PeftModel, get_peft_model

    settings: dict[str, Any] = {"task_type": "CAUSAL_LM", "target_modules": ["wte", "c_attn"], "fan_in_fan_out": True}
    made: Any = get_peft_model(GENERATORS["gpt2"](), LoraConfig(**settings))
    shake(made)
    made.save_pretrained(tmp_path, save_embedding_layers=True)
    ids = torch.arange(3, 12)[None]
    want = PeftModel.from_pretrained(GENERATORS["gpt2"](), str(tmp_path))(input_ids=ids).logits
    attached, switched = GENERATORS["gpt2"](), GENERATORS["gpt2"]()
    attach_peft(attached, tmp_path)
    Switch(switched, {"task": read_adapter(tmp_path)}).use("task")
    for model in (attached, switched):
        torch.testing.assert_close(model.eval()(input_ids=ids).logits, want, rtol=0, atol=1e-5)
    assert not attached.get_parameter("lm_head.weight").requires_grad
