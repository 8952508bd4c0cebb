"""DoRA: initially the backbone; equal to PEFT's use_dora in forward, gradient and file; merging."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from loralab.backbones.tiny import make_tokenizer
from loralab.errors import UserError
from loralab.methods.dora import DoRAConv1D, DoRALinear
from loralab.methods.formats.peft_lora import factors_of, load_adapter, read_factors, save_peft
from loralab.methods.formats.plain import export_merged, load_model
from loralab.methods.lora import lora_modules, merge, swap, unmerge
from loralab.methods.lora_layers import ALL_ROWS, Factors
from loralab.training.optim import adamw, param_groups
from tests.adapted import adapt, head_of, logits, shake
from tests.families import FAMILIES, example_batch

# PEFT 0.21 reads an attribute that transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TARGETS = {"bert": ["query", "dense"], "gpt2": ["c_attn", "c_fc"], "llama": ["all"], "t5": ["q", "wo"]}
families = pytest.mark.parametrize("family", TARGETS)


def dora(family: str, **settings: Any) -> Any:
    return adapt(family, **{"targets": TARGETS[family], "dora": True, **settings})


def in_peft(model: Any, family: str, directory: Path) -> Any:
    """The same model with the same adapter in PEFT, to be trained further."""
    from peft import PeftModel

    save_peft(model, directory, head=head_of(model), base_model="x")
    return PeftModel.from_pretrained(FAMILIES[family](), str(directory), is_trainable=True)


def peft_name(name: str, heads: tuple[str, ...]) -> str:
    prefix = "base_model.model."
    for head in heads:
        if name.startswith(f"{head}."):
            return f"{prefix}{head}.modules_to_save.default{name.removeprefix(head)}"
    owner, _, leaf = name.rpartition(".blocks.whole.")
    if owner:
        return f"{prefix}{owner}.lora_{leaf}.default.weight"
    if name.endswith(".magnitude"):
        return f"{prefix}{name.removesuffix('.magnitude')}.lora_magnitude_vector.default.weight"
    return prefix + name.replace(".base.bias_update.b", ".base_layer.bias").replace(".bias_update.b", ".bias")


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: module.weight.detach().clone() for name, module in lora_modules(model).items()}


def module_of(kind: str) -> tuple[DoRALinear, Tensor]:
    """One map with a random update and magnitude, and inputs for it."""
    torch.manual_seed(0)
    factors = Factors(8, 6, rank=3, scaling=1.5, dropout=0.0, rows=ALL_ROWS)
    make = DoRALinear if kind == "linear" else DoRAConv1D
    module = make(nn.Linear(8, 6) if kind == "linear" else Conv1D(6, 8), {"whole": factors})
    with torch.no_grad():
        for parameter in (*factors.parameters(), module.magnitude):
            parameter.add_(torch.randn(parameter.shape))
    return module, torch.randn(4, 8)


@pytest.mark.parametrize("init", ["A", "B"])
@families
def test_an_untrained_adapter_leaves_the_output(family: str, init: str) -> None:
    assert torch.equal(logits(dora(family, init=init, bias="all")), logits(FAMILIES[family]()))


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_each_row_has_the_magnitude_as_its_length_and_loras_direction(kind: str) -> None:
    module, x = module_of(kind)
    by_output = module.weight if kind == "linear" else module.weight.T
    direction = by_output + module.factors()["whole"].delta()
    row = module.magnitude[:, None] * direction / direction.norm(dim=1, keepdim=True)
    torch.testing.assert_close(module(x), x @ row.T + module.base.bias)
    torch.testing.assert_close(row.norm(dim=1), module.magnitude.abs())
    torch.testing.assert_close(by_output + (module.delta() if kind == "linear" else module.delta().T), row)


@pytest.mark.parametrize("bias", ["none", "all"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@families
def test_forward_and_gradients_are_pefts(family: str, bias: str, dropout: float, tmp_path: Path) -> None:
    ours = dora(family, bias=bias, dropout=dropout)
    shake(ours)
    theirs = in_peft(ours, family, tmp_path)
    losses = []
    for model in (ours, theirs):
        model.train()
        torch.manual_seed(0)  # so that both drop the same inputs
        loss = model(**example_batch(ours)).loss
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    oracle = dict(theirs.named_parameters())
    for name, parameter in trained(ours).items():
        expected = oracle[peft_name(name, head_of(ours))].grad
        assert parameter.grad is not None and expected is not None and expected.any(), name
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-5, msg=name)
    assert any(name.endswith(".magnitude") for name in trained(ours))


@families
def test_peft_reads_our_file_and_we_read_it_to_the_bit(family: str, tmp_path: Path) -> None:
    first, second = dora(family), dora(family, seed=1)
    shake(first)
    torch.testing.assert_close(logits(in_peft(first, family, tmp_path)), logits(first), rtol=0, atol=1e-5)
    load_adapter(second, tmp_path)
    assert all(torch.equal(p, trained(first)[name]) for name, p in trained(second).items())


@pytest.mark.parametrize(("family", "target"), [("bert", "query"), ("gpt2", "c_attn")])
def test_we_read_what_peft_writes(family: str, target: str, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="SEQ_CLS", r=3, lora_alpha=5, target_modules=[target], use_dora=True, fan_in_fan_out=family == "gpt2"
    )
    theirs = get_peft_model(FAMILIES[family](), config)
    shake(theirs)
    theirs.save_pretrained(tmp_path)
    ours = dora(family, targets=[target], rank=3)
    load_adapter(ours, tmp_path)
    torch.testing.assert_close(logits(ours), logits(theirs), rtol=0, atol=1e-5)
    assert sum(p.numel() for p in trained(ours).values()) == theirs.get_nb_trainable_parameters()[0]


@families
def test_merged_equals_unmerged_and_comes_out_again(family: str) -> None:
    model = dora(family, bias="all")
    shake(model)
    before, start = logits(model), weights(model)
    deltas = {name: module.delta() for name, module in lora_modules(model).items()}
    for _ in range(2):
        merge(model)
    torch.testing.assert_close(logits(model), before, rtol=0, atol=1e-5)
    for name, module in lora_modules(model).items():
        torch.testing.assert_close(module.weight, start[name] + deltas[name], rtol=0, atol=1e-6)
        torch.testing.assert_close(module.delta(), deltas[name], rtol=0, atol=1e-5)
    for _ in range(2):
        unmerge(model)
    for name, weight in weights(model).items():
        torch.testing.assert_close(weight, start[name], rtol=0, atol=1e-5)
    torch.testing.assert_close(logits(model), before, rtol=0, atol=1e-5)


def test_swapping_in_a_merged_model_is_having_the_other() -> None:
    first, second = dora("gpt2"), dora("gpt2", seed=1)
    shake(first, seed=1)
    shake(second, seed=2)
    merge(first)
    swap(first, trained(second))
    torch.testing.assert_close(logits(first), logits(second), rtol=0, atol=1e-5)


@pytest.mark.parametrize("merged", [False, True])
@families
def test_a_merged_checkpoint_gives_the_same_logits(family: str, merged: bool, tmp_path: Path) -> None:
    model = dora(family, bias="all")
    shake(model)
    before = logits(model)
    if merged:
        merge(model)
    export_merged(model, make_tokenizer(), tmp_path / "plain", dtype=torch.float32)
    torch.testing.assert_close(logits(load_model(tmp_path / "plain", type(model))), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_a_bf16_map_trains_fp32_factors_and_magnitude(kind: str) -> None:
    module, x = module_of(kind)
    exact = module(x).detach()
    module.base.to(torch.bfloat16)
    y = module(x.to(torch.bfloat16))
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), exact, rtol=0.03, atol=0.08)
    y.float().square().mean().backward()
    for parameter in module.parameters():
        if parameter.dtype == torch.float32:
            assert parameter.grad is not None and parameter.grad.dtype == torch.float32 and parameter.grad.any()
    assert module.magnitude.dtype == torch.float32


@pytest.mark.parametrize(
    ("family", "targets", "message"),
    [
        (
            "gpt2",
            ["q", "v"],
            r"lora\.dora: transformer\.h\.0\.attn\.c_attn holds several maps .* \(c_attn\) in the place",
        ),
        ("bert", ["query", "word_embeddings"], r"lora\.dora: bert\.embeddings\.word_embeddings is an embedding"),
    ],
)
def test_parts_of_a_map_and_embeddings_are_refused(family: str, targets: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        dora(family, targets=targets)


def test_it_is_no_product_of_two_matrices(tmp_path: Path) -> None:
    model = dora("bert")
    save_peft(model, tmp_path, head=head_of(model), base_model="x")
    with pytest.raises(UserError, match="is not scaling B A of two matrices: DoRA"):
        read_factors(tmp_path)
    with pytest.raises(UserError, match="is not scaling B A of two matrices: DoRA"):
        factors_of(model)


def test_the_magnitudes_have_lr_and_no_decay() -> None:
    model = dora("bert")
    found = {g["name"]: g for g in groups(model, layout="roles")}
    assert (found["magnitude"]["lr"], found["magnitude"]["weight_decay"]) == (1e-3, 0.0)
    assert found["magnitude"]["roles"] == ["magnitude"]
    assert len(found["magnitude"]["params"]) == len(lora_modules(model))


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_reference_groups_step_as_pefts_loraplus_optimizer(family: str, tmp_path: Path) -> None:
    """PEFT trains the magnitudes like other vectors with weight decay, at lr_B."""
    from peft.optimizers import create_loraplus_optimizer

    adam: dict[str, Any] = {"betas": (0.9, 0.99), "eps": 1e-8}
    ours = dora(family)
    shake(ours)
    theirs = in_peft(ours, family, tmp_path)
    start = {name: p.detach().clone() for name, p in trained(ours).items()}
    optimizers = (
        adamw(groups(ours, layout="reference"), **adam),
        create_loraplus_optimizer(
            theirs, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16.0, loraplus_weight_decay=0.1, **adam
        ),
    )
    for model, optimizer in zip((ours, theirs), optimizers, strict=True):
        for _ in range(3):
            model(**example_batch(ours)).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    oracle = dict(theirs.named_parameters())
    for name, parameter in trained(ours).items():
        torch.testing.assert_close(parameter, oracle[peft_name(name, head_of(ours))], rtol=0, atol=2e-5, msg=name)
        assert (parameter - start[name]).abs().max() > 1e-3, f"{name} hardly moved"


def groups(model: Any, *, layout: Any) -> list[dict[str, Any]]:
    return param_groups(
        model,
        head=head_of(model),
        lr=1e-3,
        ratio=16.0,
        head_lr=None,
        embedding_lr=1e-6,
        weight_decay=0.1,
        layout=layout,
    )
