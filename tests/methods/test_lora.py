"""LoRA on twelve families: zero initial update, adapted maps, merging and swapping; PEFT's logits on every family."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification

from loralab.backbones.families import linear_maps
from loralab.errors import UserError
from loralab.methods.formats.peft_lora import save_peft
from loralab.methods.lora import attach, bias_updates, lora_modules, merge, swap, unmerge
from tests.adapted import LORA, adapt, frozen, head_of, logits, shake
from tests.families import ALL, FAMILIES, FUSED, PAD, VARIANTS, VOCABULARY, example_batch, in_gate
from tests.generators import EVERY_GENERATOR, pairs

families = pytest.mark.parametrize("family", FAMILIES)


def trained(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


@families
@pytest.mark.parametrize("init", ["A", "B"])
@pytest.mark.parametrize("init_dist", ["kaiming", "gaussian"])
def test_an_untrained_adapter_leaves_the_output(family: str, init: str, init_dist: str) -> None:
    before = logits(FAMILIES[family]())
    model = adapt(family, targets=["all"], init=init, init_dist=init_dist, bias="all")
    assert torch.equal(logits(model), before)


@families
def test_every_factor_of_every_map_learns(family: str) -> None:
    """A factor without a gradient would not be used by the model."""
    model = adapt(family, targets=["all"])
    shake(model)
    model(**example_batch(model)).loss.backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert without == []


@families
def test_only_the_adapter_and_the_head_are_trainable(family: str) -> None:
    model = adapt(family)
    heads = head_of(model)
    for name, parameter in model.named_parameters():
        inside = any(name.startswith(f"{head}.") for head in heads)
        assert parameter.requires_grad == (".blocks." in name or inside), name


@families
def test_merged_equals_unmerged(family: str) -> None:
    model = adapt(family, targets=["all"], rank_pattern={"v": 2})
    shake(model)
    before, weights = logits(model), {n: m.weight.clone() for n, m in lora_modules(model).items()}
    merge(model)
    torch.testing.assert_close(logits(model), before, rtol=0, atol=1e-5)
    for name, module in lora_modules(model).items():
        assert not torch.equal(module.weight, weights[name])
    unmerge(model)
    torch.testing.assert_close(logits(model), before, rtol=0, atol=1e-5)
    for name, module in lora_modules(model).items():
        torch.testing.assert_close(module.weight, weights[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_q_and_v_of_a_fused_projection_leave_k_alone_bit_for_bit(family: str) -> None:
    model = adapt(family, targets=["q", "v"])
    shake(model)
    k = {m.name: list(m.rows) for m in linear_maps(frozen(family)) if m.role == "k" and m.rows is not None}
    for name, module in lora_modules(model).items():
        x = torch.randn(3, 32)
        before, after = module.base(x), module(x)
        others = [i for i in range(96) if i not in k[name]]
        assert torch.equal(after[:, k[name]], before[:, k[name]])
        assert (after[:, others] != before[:, others]).all()


@pytest.mark.parametrize("merged", [False, True])
def test_swapping_adapters_is_having_the_other(merged: bool) -> None:
    first, second = adapt("gpt2", bias="lora"), adapt("gpt2", bias="lora", seed=1)
    shake(first, seed=1)
    shake(second, seed=2)
    mine, before = trained(first), logits(first)
    if merged:
        merge(first)
    swap(first, trained(second))
    torch.testing.assert_close(logits(first), logits(second), rtol=0, atol=1e-5)
    swap(first, mine)
    torch.testing.assert_close(logits(first), before, rtol=0, atol=1e-5)


def test_swapping_in_another_shape_is_refused_and_changes_nothing() -> None:
    model = adapt("bert")
    before = trained(model)
    for other in (adapt("bert", rank=2), adapt("bert", targets=["q"])):
        with pytest.raises(UserError, match=r"^swap: the adapters differ in 'bert\.encoder"):
            swap(model, trained(other))
    assert all(torch.equal(before[name], p) for name, p in trained(model).items())


@pytest.mark.parametrize(
    ("scaling", "expected"), [("alpha/r", 6 / 4), ("alpha/sqrt_r", 6 / 2), ("constant", 6)], ids=str
)
def test_scaling_rules(scaling: str, expected: float) -> None:
    blocks = [b for m in lora_modules(adapt("bert", scaling=scaling)).values() for b in m.factors().values()]
    assert {block.scaling for block in blocks} == {expected}


def test_rank_patterns_by_role_and_glob_and_the_last_wins() -> None:
    model = adapt("gpt2", targets=["all"], rank_pattern={"mlp": 2, "v": 3, "h.0.mlp.c_fc": 7})
    ranks = {f"{n}:{b}": f.rank for n, m in lora_modules(model).items() for b, f in m.factors().items()}
    assert ranks["transformer.h.0.attn.c_attn:q"] == 4
    assert ranks["transformer.h.0.attn.c_attn:v"] == 3
    assert ranks["transformer.h.0.mlp.c_fc:whole"] == 7
    assert ranks["transformer.h.1.mlp.c_fc:whole"] == 2


def test_a_seed_gives_the_same_factors_whatever_the_global_generator_says() -> None:
    first = trained(adapt("bert"))
    torch.manual_seed(123)
    again = trained(adapt("bert"))
    other = trained(adapt("bert", seed=1))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not any(torch.equal(value, other[name]) for name, value in first.items() if name.endswith(".A"))


def test_an_adapter_lives_on_the_device_of_its_map() -> None:
    model = frozen("bert").to("meta")
    attach(model, linear_maps(model), head=head_of(model), **{**LORA, "bias": "all"})
    assert {p.device.type for p in model.parameters()} == {"meta"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_seed_gives_the_same_factors_on_every_device() -> None:
    model = frozen("gpt2").to("cuda")
    attach(model, linear_maps(model), head=head_of(model), **{**LORA, "targets": ["all"]})
    on_cpu = trained(adapt("gpt2", targets=["all"]))
    assert all(p.device.type == "cuda" and torch.equal(p.cpu(), on_cpu[name]) for name, p in trained(model).items())


def test_bias_lora_trains_those_of_the_adapted_maps_and_all_trains_every_one() -> None:
    assert set(bias_updates(adapt("bert", bias="none"))) == set()
    lora = adapt("bert", bias="lora")
    assert set(bias_updates(lora)) == {f"{name}.base" for name in lora_modules(lora)}
    every = adapt("bert", bias="all")
    biases = {name for name, _ in frozen("bert").named_parameters() if name.endswith("bias")}
    hosts = {name.removesuffix(".base") for name in bias_updates(every)}
    assert hosts == {name.removesuffix(".bias") for name in biases if not name.startswith("classifier")}


def test_a_bias_of_all_learns_and_moves_the_output() -> None:
    model = adapt("gpt2", bias="all")
    shake(model)
    model(**example_batch(model)).loss.backward()
    assert all(update.b.grad is not None and update.b.grad.any() for _, update in bias_updates(model).values())


def test_maps_without_biases_train_none() -> None:
    assert bias_updates(adapt("llama", bias="all")) == {}


def test_a_tied_table_is_adapted_at_one_place_alone() -> None:
    model = adapt("t5", targets=["encoder.embed_tokens"])
    shake(model)
    before = logits(model)
    shared = model.get_parameter("transformer.shared.weight").clone()
    merge(model)
    assert torch.equal(model.get_parameter("transformer.shared.weight"), shared)
    torch.testing.assert_close(logits(model), before, rtol=0, atol=1e-5)


def test_dropout_is_off_in_evaluation() -> None:
    model = adapt("bert", dropout=0.5)
    shake(model)
    assert torch.equal(logits(model), logits(model))
    model.train()
    batch = example_batch(model)
    assert not torch.equal(model(**batch).logits, model(**batch).logits)


def test_an_adapter_takes_the_mode_of_its_map() -> None:
    assert not any(module.training for module in adapt("bert").modules())
    model = frozen("bert").train()
    attach(model, linear_maps(model), head=head_of(model), **{**LORA, "dropout": 0.1})
    assert all(module.training for module in model.modules())


# Each family of the table, adapted and trained by a step, and what PEFT makes of it. PEFT 0.21 reads an attribute that
# transformers 5.23 has renamed.
in_peft = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def step(model: Any, batch: dict[str, Tensor]) -> tuple[float, float]:
    """The loss before and after a step of AdamW on what is trained; B is 0 before and has moved after."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0)
    before = model.eval()(**batch).loss
    before.backward()
    optimizer.step()
    optimizer.zero_grad()
    assert all(factors.B.any() for module in lora_modules(model).values() for factors in module.factors().values())
    with torch.no_grad():
        return before.item(), model(**batch).loss.item()


def check(model: Any, bare: Any, inputs: dict[str, Tensor], directory: Path, *, head: tuple[str, ...] = ()) -> None:
    """Exported, PEFT computes the same around `bare`; merged, the model computes the same; in fp64."""
    from peft import PeftModel

    shake(model)
    save_peft(model, directory, head=head, base_model="somewhere/backbone")
    theirs: Any = PeftModel.from_pretrained(copy.deepcopy(bare), str(directory))
    with torch.no_grad():
        ours = model.double()(**inputs).logits
        assert (ours - bare.double()(**inputs).logits).abs().max() > 1e-2, "the adapter does something"
        torch.testing.assert_close(theirs.double().eval()(**inputs).logits, ours, rtol=0, atol=1e-5)
        merge(model)
        assert (model(**inputs).logits - ours).abs().max() < 1e-5 * ours.abs().max()


@in_peft
@pytest.mark.parametrize("family", in_gate(ALL | VARIANTS))
def test_a_step_on_any_family_lowers_the_loss_and_peft_gives_its_logits(family: str, tmp_path: Path) -> None:
    model = adapt(family, targets=["all"])
    batch = example_batch(model)
    before, after = step(model, batch)
    assert after < before
    del batch["labels"]
    check(model, (ALL | VARIANTS)[family](), batch, tmp_path, head=head_of(model))


@in_peft
@pytest.mark.parametrize("family", FUSED)
def test_q_and_v_alone_of_a_fused_map_are_an_adapter_of_peft(family: str, tmp_path: Path) -> None:
    model = adapt(family, targets=["q", "v"])
    batch = example_batch(model)
    del batch["labels"]
    check(model, (ALL | VARIANTS)[family](), batch, tmp_path, head=head_of(model))


@in_peft
@pytest.mark.parametrize("family", in_gate(EVERY_GENERATOR))
def test_a_step_on_any_generator_lowers_the_loss_and_peft_gives_its_logits(family: str, tmp_path: Path) -> None:
    model: Any = EVERY_GENERATOR[family]().requires_grad_(False)
    attach(model, linear_maps(model), head=(), **{**LORA, "targets": ["all"]})
    batch = pairs(3, seq2seq=model.config.is_encoder_decoder)(np.arange(3))
    before, after = step(model, batch)
    assert after < before
    del batch["labels"]
    check(model, EVERY_GENERATOR[family](), batch, tmp_path)


@in_peft
@pytest.mark.parametrize("family", ["falcon", "albert", "bart", "mpt", "gpt2"])
@pytest.mark.parametrize("settings", [{"dora": True}, {"scaling": "alpha/sqrt_r"}, {"bias": "all"}], ids=str)
def test_dora_rslora_and_biases_of_any_kind_of_map_are_those_of_peft(
    family: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    if family == "mpt" and "bias" in settings:
        pytest.skip("MPT has no biases")
    fused = {"falcon": "query_key_value", "mpt": "Wqkv", "gpt2": "c_attn"}
    model = adapt(family, targets=[fused.get(family, "q"), "o", "mlp"], **settings)
    batch = example_batch(model)
    del batch["labels"]
    check(model, (ALL | VARIANTS)[family](), batch, tmp_path, head=head_of(model))


@in_peft
@pytest.mark.parametrize("family", ["bart", "gemma", "gemma2", "falcon"])
def test_the_update_of_a_scaled_embedding_is_scaled_as_in_peft(family: str, tmp_path: Path) -> None:
    model = adapt(family, targets=["q", "word_embeddings" if family == "falcon" else "embed_tokens"])
    batch = example_batch(model)
    del batch["labels"]
    check(model, (ALL | VARIANTS)[family](), batch, tmp_path, head=head_of(model))


@in_peft
def test_all_on_a_family_without_roles_is_pefts_all_linear(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    def make() -> Any:
        config = AutoConfig.for_model(
            "stablelm", vocab_size=VOCABULARY, pad_token_id=PAD, hidden_size=32, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, intermediate_size=48, num_labels=3,
        )  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()

    model = make().requires_grad_(False)
    assert linear_maps(model) == ()
    attach(model, (), head=("score",), **{**LORA, "targets": ["all"]})
    theirs: Any = get_peft_model(make(), LoraConfig(target_modules="all-linear", task_type="SEQ_CLS"))
    names = {name.removeprefix("base_model.model.") for name, m in theirs.named_modules() if hasattr(m, "lora_A")}
    assert set(lora_modules(model)) == names
    batch = example_batch(model)
    del batch["labels"]
    check(model, make(), batch, tmp_path, head=("score",))


@pytest.mark.parametrize("tied", [True, False])
def test_all_leaves_the_output_matrix_alone_tied_or_not(tied: bool) -> None:
    from transformers import AutoModelForCausalLM

    config = AutoConfig.for_model(
        "stablelm", vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, intermediate_size=16, tie_word_embeddings=tied,
    )  # fmt: skip
    model: Any = AutoModelForCausalLM.from_config(config).requires_grad_(False)
    attach(model, (), head=(), **{**LORA, "targets": ["all"]})
    assert {name.rsplit(".", 1)[-1] for name in lora_modules(model)} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
    }  # fmt: skip
