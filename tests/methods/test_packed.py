"""Packed models: each row of a joint batch has the logits and the gradients of its own model."""

import copy

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from loralab.backbones.families import linear_maps
from loralab.methods.lora import attach
from loralab.methods.packed import PackedModel, UnpackableError, share_frozen
from loralab.training.evaluate import forward
from tests.families import FAMILIES

RANKS = (2, 5, 3)


def adapted(family: str, *, rank: int, seed: int, **settings: object) -> nn.Module:
    """A model of the family with factors that are not zero, and a head of its own."""
    model = FAMILIES[family]()
    model.requires_grad_(False)
    head = [name for name, module in model.named_children() if name != model.base_model_prefix]
    arguments = {
        "targets": ["q", "v"], "rank": rank, "alpha": 2.0 * seed + 1, "scaling": "alpha/r", "init": "A",
        "init_dist": "kaiming", "dropout": 0.0, "bias": "none", "rank_pattern": {}, "seed": seed,
    } | settings  # fmt: skip
    attach(model, linear_maps(model), head=head, **arguments)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in head:
            model.get_submodule(name).requires_grad_(True)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    trained: nn.Module = model.train()
    return trained


def batch(rows: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 90, (rows, 9), generator=generator)
    mask = (torch.arange(9) < torch.randint(3, 10, (rows, 1), generator=generator)).long()
    return {"input_ids": torch.where(mask.bool(), ids, 0), "attention_mask": mask}


@pytest.fixture(params=["bert", "gpt2", "llama"])
def models(request: pytest.FixtureRequest) -> list[nn.Module]:
    found = [adapted(request.param, rank=rank, seed=seed) for seed, rank in enumerate(RANKS)]
    for model in found[1:]:
        share_frozen(model, found[0])
    return found


@pytest.mark.parametrize("runs", [(0, 1, 2), (2, 0), (1,)])
def test_each_row_has_the_logits_and_gradients_of_its_model(models: list[nn.Module], runs: tuple[int, ...]) -> None:
    own = [batch(3, seed=10 + run) for run in runs]
    packed = PackedModel(models)
    packed.refresh()
    joint = {name: torch.cat([each[name] for each in own]) for name in own[0]}
    logits = packed.forward(runs, joint)
    logits.sin().sum().backward()  # type: ignore[no-untyped-call]
    packed.give_gradients()
    found = {run: [p.grad for p in models[run].parameters() if p.requires_grad] for run in runs}
    for run, each, its in zip(runs, own, logits.chunk(len(runs)), strict=True):
        wanted = forward(models[run], each)
        torch.testing.assert_close(its, wanted, atol=1e-5, rtol=1e-5)
        trained = [p for p in models[run].parameters() if p.requires_grad]
        for gradient, expected in zip(found[run], torch.autograd.grad(wanted.sin().sum(), trained), strict=True):
            assert gradient is not None
            torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-4)


def test_a_parameter_that_no_row_went_through_has_no_gradient(models: list[nn.Module]) -> None:
    trained = [p for model in models for p in model.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    packed = PackedModel(models)
    packed.refresh()
    packed.give_gradients()
    assert [p.grad for p in trained] == [None] * len(trained)


def test_there_is_one_copy_of_the_frozen_weights(models: list[nn.Module]) -> None:
    packed = PackedModel(models)
    frozen = [{p.data_ptr() for p in m.parameters() if not p.requires_grad} for m in (*models, packed.model)]
    assert frozen[0] and all(each == frozen[0] for each in frozen)


def test_packing_leaves_the_models_as_they_were(models: list[nn.Module]) -> None:
    before = [copy.deepcopy(model.state_dict()) for model in models]
    packed = PackedModel(models)
    packed.refresh()
    packed.forward((0, 1, 2), batch(3, seed=1))
    for model, state in zip(models, before, strict=True):
        assert model.state_dict().keys() == state.keys()
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_other_frozen_weights_are_not_shared() -> None:
    one, other = (adapted("bert", rank=2, seed=seed) for seed in (0, 1))
    frozen = next(p for p in other.parameters() if not p.requires_grad)
    with torch.no_grad():
        frozen.add_(1e-3)
    with pytest.raises(UnpackableError, match="differs"):
        share_frozen(other, one)
    assert next(p for p in other.parameters() if not p.requires_grad) is frozen


@pytest.mark.parametrize("settings", [{"dropout": 0.1}, {"bias": "lora"}, {"dora": True}])
def test_other_adapters_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(UnpackableError):
        PackedModel([adapted("bert", rank=2, seed=seed, **settings) for seed in (0, 1)])


def test_an_adapted_output_matrix_is_refused_since_runs_have_unequally_many_targets() -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=90, tie_word_embeddings=False, **sizes)).requires_grad_(False)
    arguments = {"rank": 2, "alpha": 2.0, "scaling": "alpha/r", "init": "A", "init_dist": "kaiming", "dropout": 0.0}
    attach(model, linear_maps(model), head=[], targets=["lm_head"], bias="none", rank_pattern={}, seed=0, **arguments)  # type: ignore[arg-type]
    with pytest.raises(UnpackableError, match="the output matrix is adapted"):
        PackedModel([model, copy.deepcopy(model)])
