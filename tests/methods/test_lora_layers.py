"""The factors and the modules that add scaling * B A: initial statistics, precision, dropout, merging."""

import math
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from loralab.methods.lora_layers import (
    ALL_ROWS,
    BiasUpdate,
    EmbeddingFactors,
    Factors,
    LoRAConv1D,
    LoRAEmbedding,
    LoRALinear,
    LoRAModule,
    Rows,
)

D_IN, D_OUT, RANK = 400, 300, 64
Init = Literal["A", "B"]
Dist = Literal["kaiming", "gaussian"]


def drawn(kind: type[Factors], init: Init, dist: Dist, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The random factor and the zero one."""
    factors = kind(D_IN, D_OUT, rank=RANK, scaling=2.0, dropout=0.0, rows=ALL_ROWS)
    factors.reset(init=init, dist=dist, generator=torch.Generator().manual_seed(seed))
    A, B = factors.A.detach(), factors.B.detach()
    first = (init == "A") != (kind is EmbeddingFactors)
    return (A, B) if first else (B, A)


def random_factors(d_in: int, d_out: int, *, dropout: float = 0.0, rows: Rows = ALL_ROWS, rank: int = 3) -> Factors:
    factors = Factors(d_in, d_out, rank=rank, scaling=1.5, dropout=dropout, rows=rows)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in factors.parameters():
            parameter.normal_(generator=generator)
    return factors


def adapted(kind: str) -> tuple[LoRAModule, Tensor]:
    """A module with a random update, and inputs for it."""
    torch.manual_seed(0)
    if kind == "embedding":
        factors = EmbeddingFactors(20, 6, rank=3, scaling=1.5, dropout=0.0, rows=ALL_ROWS)
        with torch.no_grad():
            for parameter in factors.parameters():
                parameter.normal_()
        return LoRAEmbedding(nn.Embedding(20, 6), {"whole": factors}), torch.randint(20, (2, 5))
    base, cls = (nn.Linear(8, 6), LoRALinear) if kind == "linear" else (Conv1D(6, 8), LoRAConv1D)
    return cls(base, {"whole": random_factors(8, 6)}), torch.randn(2, 5, 8)


kinds = pytest.mark.parametrize("kind", ["linear", "conv1d", "embedding"])


@pytest.mark.parametrize("init", ["A", "B"])
@pytest.mark.parametrize("dist", ["kaiming", "gaussian"])
@pytest.mark.parametrize("kind", [Factors, EmbeddingFactors])
def test_one_factor_is_random_and_the_other_zero(kind: type[Factors], init: Init, dist: Dist) -> None:
    random, zero = drawn(kind, init, dist)
    assert not zero.any()
    assert random.all()


@pytest.mark.parametrize(("init", "fan_in"), [("A", D_IN), ("B", RANK)])
def test_kaiming_is_uniform_within_one_over_the_root_of_the_fan_in(init: Init, fan_in: int) -> None:
    random, _ = drawn(Factors, init, "kaiming")
    bound = 1 / math.sqrt(fan_in)
    assert 0.99 * bound < random.abs().max() <= bound
    assert random.var().item() == pytest.approx(bound**2 / 3, rel=0.03)
    assert abs(random.mean()) < 0.02 * bound


@pytest.mark.parametrize(("init", "fan_in"), [("A", D_IN), ("B", RANK)])
def test_gaussian_has_the_variance_of_one_over_the_fan_in(init: Init, fan_in: int) -> None:
    random, _ = drawn(Factors, init, "gaussian")
    assert random.var().item() == pytest.approx(1 / fan_in, rel=0.03)
    assert (random**4).mean().item() == pytest.approx(3 / fan_in**2, rel=0.1), "the fourth moment of a normal"


@pytest.mark.parametrize(
    ("init", "dist", "variance"),
    [("A", "kaiming", 1), ("B", "kaiming", 1), ("A", "gaussian", 1 / RANK), ("B", "gaussian", 1)],
)
def test_an_embedding_reverses_the_roles_of_the_initialisations(init: Init, dist: Dist, variance: float) -> None:
    random, _ = drawn(EmbeddingFactors, init, dist)
    assert random.var().item() == pytest.approx(variance, rel=0.03)


def test_kaiming_is_what_torch_and_peft_call_kaiming_uniform_of_root_five() -> None:
    expected = torch.empty(RANK, D_IN)
    nn.init.kaiming_uniform_(expected, a=math.sqrt(5), generator=torch.Generator().manual_seed(3))
    random, _ = drawn(Factors, "A", "kaiming", seed=3)
    torch.testing.assert_close(random, expected)


@kinds
def test_the_forward_is_the_frozen_map_plus_the_update(kind: str) -> None:
    module, x = adapted(kind)
    one_hot = nn.functional.one_hot(x, 20).float() if kind == "embedding" else x
    block = module.factors()["whole"]
    torch.testing.assert_close(module(x), module.base(x) + 1.5 * one_hot @ block.A.T @ block.B.T)


@kinds
def test_merge_equals_forward_and_unmerge_restores(kind: str) -> None:
    module, x = adapted(kind)
    weight, y = module.weight.detach().clone(), module(x)
    for _ in range(2):
        module.merge()
    torch.testing.assert_close(module(x), y, rtol=0, atol=1e-5)
    torch.testing.assert_close(module.base(x), y, rtol=0, atol=1e-5)
    for _ in range(2):
        module.unmerge()
    torch.testing.assert_close(module.weight, weight, rtol=0, atol=1e-6)
    torch.testing.assert_close(module(x), y, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rows", [slice(2, 5), (0, 3, 7)])
def test_a_block_of_rows_touches_no_other_output(rows: Rows) -> None:
    base, x = nn.Linear(5, 9), torch.randn(4, 5)
    module = LoRALinear(base, {"q": random_factors(5, 3, rows=rows)})
    touched = torch.zeros(9, dtype=torch.bool)
    touched[list(rows) if isinstance(rows, tuple) else rows] = True
    before, after = base(x), module(x)
    assert torch.equal(after[:, ~touched], before[:, ~touched])
    assert (after[:, touched] != before[:, touched]).all()
    assert not module.delta()[~touched].any()
    module.merge()
    torch.testing.assert_close(module(x), after)
    assert torch.equal(module(x)[:, ~touched], before[:, ~touched])


def test_dropout_acts_in_training_alone() -> None:
    x = torch.ones(64, 8)
    module = LoRALinear(nn.Linear(8, 6), {"whole": random_factors(8, 6, dropout=0.5)})
    module.eval()
    assert torch.equal(module(x)[0], module(x)[1])
    update = module(x) - module.base(x)
    module.train()
    torch.manual_seed(0)
    noisy = module(x) - module.base(x)
    assert not torch.equal(noisy[0], noisy[1])
    spread = (module.factors()["whole"].delta().norm() / math.sqrt(64)).item()
    assert (noisy.mean(0) - update[0]).abs().max() < 4 * spread, "it keeps the mean"


@pytest.mark.parametrize("kind", ["linear", "embedding"])
def test_a_bf16_map_trains_fp32_factors(kind: str) -> None:
    module, x = adapted(kind)
    exact = module(x).detach()
    module.base.to(torch.bfloat16)
    y = module(x if kind == "embedding" else x.to(torch.bfloat16))
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), exact, rtol=0.02, atol=0.05)
    y.float().square().mean().backward()
    for parameter in module.factors()["whole"].parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None and parameter.grad.dtype == torch.float32 and parameter.grad.any()


def test_a_bias_update_adds_to_the_frozen_bias() -> None:
    base, x = nn.Linear(4, 3), torch.randn(2, 4)
    before = base(x)
    update = BiasUpdate(3, role="bias")
    base.register_forward_hook(update)
    assert torch.equal(base(x), before)
    with torch.no_grad():
        update.b.copy_(torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(base(x), before + torch.tensor([1.0, 2.0, 3.0]))


def test_rank_and_output_width_are_those_of_the_factors() -> None:
    assert random_factors(8, 6, rank=5).rank == 5
    module, _ = adapted("conv1d")
    assert module.d_out == 6
    assert module.weight.shape == (8, 6)


def test_an_adapted_map_shows_the_weight_and_the_bias_of_its_base() -> None:
    """Some models read them (T5 a dtype, Jamba a bias)."""
    base = nn.Linear(4, 3)
    module = LoRALinear(base, {"whole": Factors(4, 3, rank=2, scaling=1.0, dropout=0.0, rows=ALL_ROWS)})
    assert module.weight is base.weight
    assert module.bias is base.bias


def test_the_update_of_a_scaled_embedding_is_scaled() -> None:
    class Scaled(nn.Embedding):
        embed_scale = 3.0

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return super().forward(ids) * self.embed_scale

    factors = EmbeddingFactors(20, 6, rank=3, scaling=1.5, dropout=0.0, rows=ALL_ROWS)
    factors.reset(init="A", dist="kaiming", generator=torch.Generator().manual_seed(0))
    nn.init.normal_(factors.A)
    module = LoRAEmbedding(Scaled(20, 6), {"whole": factors})
    ids = torch.tensor([[1, 5, 19]])
    wanted = 3.0 * (module.weight + factors.delta().T)[ids]
    torch.testing.assert_close(module(ids), wanted)
    module.merge()
    torch.testing.assert_close(module(ids), wanted)
