"""Bottleneck adapters: where they stand in every family, what they compute, and what is trained with them."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, gelu, relu, softmax
from transformers import BertConfig, BertForSequenceClassification

from loralab.backbones.families import linear_maps
from loralab.backbones.first_token import narrow_last_layer
from loralab.errors import UserError
from loralab.methods.bottleneck import Bottleneck, attach, bottlenecks
from loralab.training.optim import adamw, param_groups, param_roles
from tests.adapted import frozen, head_of, logits, shake
from tests.families import FAMILIES, MORE_FAMILIES, example_batch

SIZE, WIDTH = 5, 32
_BERT = ("attention.output.dense", "output.dense")
_LLAMA = ("self_attn.o_proj", "mlp.down_proj")
# What ends a block's attention and its MLP.
ENDS = {
    **dict.fromkeys(("bert", "roberta", "electra", "deberta_v2", "xlm_roberta"), _BERT),
    **dict.fromkeys(("llama", "qwen2", "mistral", "qwen3", "phi3", "gemma"), _LLAMA),
    "distilbert": ("attention.out_lin", "ffn.lin2"),
    "mpnet": ("attention.attn.o", "output.dense"),
    "gpt2": ("attn.c_proj", "mlp.c_proj"),
    "gpt_neox": ("attention.dense", "mlp.dense_4h_to_h"),
    "opt": ("self_attn.out_proj", "fc2"),
    "bloom": ("self_attention.dense", "mlp.dense_4h_to_h"),
    "gptj": ("attn.out_proj", "mlp.fc_out"),
    "modernbert": ("attn.Wo", "mlp.Wo"),
}
families = pytest.mark.parametrize("family", FAMILIES)
placements = pytest.mark.parametrize("placement", ["houlsby", "pfeiffer"])


def backbone(family: str, dtype: torch.dtype) -> Any:
    """A frozen tiny classifier in `dtype`, its head in fp32, as loading has it."""
    model: Any = frozen(family)
    if dtype != torch.float32:
        model.base_model.to(dtype)
        for name in head_of(model):
            head = model.get_submodule(name).float()
            head.register_forward_pre_hook(lambda _module, inputs: tuple(x.float() for x in inputs))
    return model


def adapted(family: str, placement: str, *, dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
    """The same with adapters in place."""
    model = backbone(family, dtype)
    given: Any = {"placement": placement, "size": SIZE, "activation": "gelu", "seed": 0, **settings}
    attach(model, linear_maps(model), head=head_of(model), **given)
    return model


def trained(model: Any) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def outcome(model: Any, batch: dict[str, Tensor]) -> list[Tensor]:
    """Logits, and the gradient of all that is trained."""
    weights = [p for p in model.parameters() if p.requires_grad]
    found = model(**{name: value for name, value in batch.items() if name != "labels"}).logits
    return [found, *torch.autograd.grad(cross_entropy(found, batch["labels"]), weights)]


@pytest.mark.parametrize("family", FAMILIES | MORE_FAMILIES)
@placements
def test_an_untrained_adapter_leaves_the_output(family: str, placement: str) -> None:
    assert torch.equal(logits(adapted(family, placement)), logits(frozen(family)))


@families
@placements
def test_in_bf16_too_where_no_norm_rounds_twice(family: str, placement: str) -> None:
    """Norms of T5 and Llama-like families round before the gain in bf16, but once in fp32: equal accuracy only."""
    before, after = logits(backbone(family, torch.bfloat16)), logits(adapted(family, placement, dtype=torch.bfloat16))
    if placement == "houlsby" and family in ("t5", "llama", "qwen2"):
        assert (after - before).norm() <= 5e-2 * before.norm()
    else:
        assert torch.equal(after, before)


@pytest.mark.parametrize("family", ENDS)
def test_houlsby_ends_both_sublayers_and_pfeiffer_the_mlp(family: str) -> None:
    attention, mlp = ENDS[family]
    both, one = (list(bottlenecks(adapted(family, placement))) for placement in ("houlsby", "pfeiffer"))
    assert len(both) == 4
    assert [name.endswith(f".{attention}") for name in both[::2]] == [True, True]
    assert one == both[1::2]
    assert [name.endswith(f".{mlp}") and not name.endswith(f".{attention}") for name in one] == [True, True]


def test_houlsby_ends_cross_attention_too() -> None:
    names = [name.split("layer.")[1] for name in bottlenecks(adapted("t5", "houlsby"))]
    encoder, decoder = ["0.SelfAttention.o", "1.DenseReluDense.wo"], ["0.SelfAttention.o", "1.EncDecAttention.o"]
    assert names == 2 * encoder + 2 * [*decoder, "2.DenseReluDense.wo"]
    assert all(name.endswith("DenseReluDense.wo") for name in bottlenecks(adapted("t5", "pfeiffer")))


def test_of_an_mlp_with_one_width_throughout_it_is_the_last_map() -> None:
    config = BertConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=100
    )
    model = BertForSequenceClassification(config).requires_grad_(False)
    attach(model, linear_maps(model), head=["classifier"], placement="pfeiffer", size=2, activation="relu", seed=0)
    assert list(bottlenecks(model)) == ["bert.encoder.layer.0.output.dense"]


@families
@placements
def test_trained_are_2_size_d_and_size_and_d_a_place_the_head_and_houlsbys_norms(family: str, placement: str) -> None:
    model, bare = adapted(family, placement), frozen(family)
    places = {"houlsby": 10, "pfeiffer": 4} if family == "t5" else {"houlsby": 4, "pfeiffer": 2}
    roles = param_roles(model, head_of(model))
    inside = [name for name in roles if ".bottleneck." in name]
    assert sum(model.get_parameter(name).numel() for name in inside) == places[placement] * (
        2 * SIZE * WIDTH + SIZE + WIDTH
    )
    assert all(roles[name] == ("bias" if name.endswith("bias") else "weight") for name in inside)
    outside = {name: p for name, p in bare.named_parameters() if not p.requires_grad}
    norms = {n for n in outside if "norm" in n.lower().split(".")[-2] or n.split(".")[-2].startswith("ln_")}
    assert norms
    assert {name for name, role in roles.items() if role == "norm"} == (norms if placement == "houlsby" else set())
    heads = {name for name, p in bare.named_parameters() if p.requires_grad}
    assert {name for name in roles if name not in inside and roles[name] != "norm"} == heads
    assert {name for name, _ in bare.named_parameters()} == {
        name for name, _ in model.named_parameters() if name not in inside
    }, "the backbone's names stay"


@families
@placements
def test_all_that_is_trained_learns(family: str, placement: str) -> None:
    """A tensor without a gradient would not be used by the model."""
    model = adapted(family, placement)
    shake(model)
    model(**example_batch(model)).loss.backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert without == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@families
def test_small_steps_move_what_is_trained_and_nothing_else(family: str, dtype: torch.dtype) -> None:
    """Two steps, since down has no gradient while up is zero; in bf16 a gain of 1 would not notice 1e-4."""
    model = adapted(family, "houlsby", dtype=dtype)
    before, moving = {n: p.detach().clone() for n, p in model.named_parameters()}, trained(model)
    groups = param_groups(
        model, head=head_of(model), lr=1e-4, ratio=1.0, head_lr=None, embedding_lr=1e-4, weight_decay=0.0
    )
    optimizer = adamw(groups, betas=(0.9, 0.999), eps=1e-8)
    for _ in range(2):
        model(**example_batch(model)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == set(moving)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert dtype in {p.dtype for p in model.parameters()}


@families
@placements
def test_in_bf16_it_computes_what_fp32_does_within_rounding(family: str, placement: str) -> None:
    exact, rounded = adapted(family, placement), adapted(family, placement, dtype=torch.bfloat16)
    shake(exact)
    shake(rounded)
    wanted = logits(exact)
    assert (logits(rounded) - wanted).norm() <= 1e-1 * wanted.norm()  # T5 rounds most: 5e-2
    assert not torch.equal(logits(rounded), wanted)


@families
@placements
def test_a_row_has_its_logits_whatever_its_company(family: str, placement: str) -> None:
    model = adapted(family, placement)
    shake(model)
    batch = example_batch(model)
    alone = [(batch["input_ids"][i : i + 1, :length], length) for i, length in enumerate((10, 7))]
    with torch.no_grad():
        rows = [model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits for ids, _ in alone]
    torch.testing.assert_close(logits(model), torch.cat(rows), rtol=0, atol=1e-5)


@pytest.mark.parametrize("activation", ["gelu", "relu", "tanh"])
def test_an_adapter_is_its_formula(activation: Any) -> None:
    adapter = Bottleneck(4, size=3, activation=activation, generator=torch.Generator().manual_seed(0))
    shake(adapter)
    h = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
    act: dict[str, Callable[[Tensor], Tensor]] = {"gelu": gelu, "relu": relu, "tanh": torch.tanh}
    wanted = h + act[activation](h @ adapter.down.T + adapter.down_bias) @ adapter.up.T + adapter.up_bias
    torch.testing.assert_close(adapter(adapter, (), h), wanted)


def test_a_block_of_bert_is_houlsbys_figure_2() -> None:
    """By hand, in fp64: attention, projection, adapter, sum, norm; two maps, adapter, sum, norm."""
    model = adapted("bert", "houlsby").double()
    shake(model)
    first = model.bert.encoder.layer[0]
    p: dict[str, Tensor] = {name: tensor.detach() for name, tensor in first.named_parameters()}
    h = torch.randn(2, 6, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def dense(x: Tensor, name: str) -> Tensor:
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt()
        return centred / deviation * p[f"{name}.weight"] + p[f"{name}.bias"]

    def adapt(x: Tensor, host: str) -> Tensor:
        down, down_bias, up, up_bias = (p[f"{host}.bottleneck.{n}"] for n in ("down", "down_bias", "up", "up_bias"))
        return x + gelu(x @ down.T + down_bias) @ up.T + up_bias

    q, k, v = (dense(h, f"attention.self.{n}").view(2, 6, 4, 8).transpose(1, 2) for n in ("query", "key", "value"))
    mixed = (softmax(q @ k.transpose(2, 3) / math.sqrt(8), -1) @ v).transpose(1, 2).reshape(2, 6, WIDTH)
    attended = adapt(dense(mixed, "attention.output.dense"), "attention.output.dense")
    middle = norm(h + attended, "attention.output.LayerNorm")
    fed = adapt(dense(gelu(dense(middle, "intermediate.dense")), "output.dense"), "output.dense")
    wanted = norm(middle + fed, "output.LayerNorm")
    torch.testing.assert_close(first(h), wanted, rtol=0, atol=1e-12)
    assert not torch.allclose(frozen("bert").double().bert.encoder.layer[0](h), wanted, atol=1e-2)


@placements
@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "xlm_roberta"])
def test_the_last_layer_for_the_first_token_alone_is_the_whole_of_it(family: str, placement: str) -> None:
    stock = adapted(family, placement).double()
    shake(stock)
    ours = deepcopy(stock)
    narrow_last_layer(ours)
    batch = example_batch(stock)
    for one, other in zip(outcome(ours, batch), outcome(stock, batch), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_a_copy_has_adapters_of_its_own() -> None:
    model = adapted("gpt2", "houlsby")
    shake(model)
    before, other = logits(model), deepcopy(model)
    shake(other, seed=1)
    assert torch.equal(logits(model), before)
    assert not torch.allclose(logits(other), before)


def test_threads_at_once_get_the_bits_of_one_alone() -> None:
    model = adapted("bert", "houlsby", dtype=torch.bfloat16)
    shake(model)
    whole = example_batch(model)
    batches = [{n: t[i : i + 1] for n, t in whole.items()} for i in (0, 1)] * 2
    alone = [outcome(model, batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for one, other in zip(alone, pool.map(lambda batch: outcome(model, batch), batches), strict=True):
                assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_seed_gives_the_same_adapters_whatever_the_global_generator_says() -> None:
    first = trained(adapted("bert", "houlsby"))
    torch.manual_seed(123)
    state = torch.get_rng_state()
    again, other = trained(adapted("bert", "houlsby")), trained(adapted("bert", "houlsby", seed=1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    downs = [name for name in first if name.endswith(".down")]
    assert len(downs) == 4
    assert not any(torch.equal(first[name], other[name]) for name in downs)
    drawn = torch.cat([first[name].flatten() for name in downs])
    assert drawn.abs().max() <= 2e-2
    assert drawn.std() == pytest.approx(0.88e-2, rel=0.1)  # of a normal cut off at two deviations


@pytest.mark.parametrize("device", ["meta", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_an_adapter_lives_on_the_device_of_its_map(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    model = frozen("bert").to(device)
    attach(model, linear_maps(model), head=head_of(model), placement="houlsby", size=3, activation="gelu", seed=0)
    assert {p.device.type for p in model.parameters()} == {device}
    if device == "cuda":
        on_cpu = trained(adapted("bert", "houlsby", size=3))
        assert all(torch.equal(value.cpu(), on_cpu[name]) for name, value in trained(model).items())


def test_a_model_without_known_roles_is_refused_in_one_line() -> None:
    model = frozen("bert")
    with pytest.raises(UserError, match=r"^method\.name: pfeiffer puts .* roles are not known; method=lora") as refusal:
        attach(model, (), head=head_of(model), placement="pfeiffer", size=3, activation="gelu", seed=0)
    assert "\n" not in str(refusal.value)
    assert bottlenecks(model) == {}
