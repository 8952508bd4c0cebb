"""Trained parameters without effect on the output raise UserError before training."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from loralab.backbones.families import linear_maps
from loralab.backbones.load import Backbone
from loralab.backbones.source import locate
from loralab.compat import transformers as compat
from loralab.errors import UserError
from loralab.methods import bitfit, bottleneck, intrinsic, lora, prompts
from loralab.runs.effect import check_effect
from tests.adapted import LORA, adapt, frozen, head_of
from tests.families import FAMILIES, MORE_FAMILIES
from tests.generators import GENERATORS
from tests.methods.prompted import attach, decoder, prompted

EVERY = sorted(FAMILIES | MORE_FAMILIES)


def checked(model: Any, method: str = "lora", *, seq2seq: bool = False) -> tuple[str, ...]:
    source = locate("tiny", package=None, hub=None, revision=None, path=None, cache=None)
    head = () if model.can_generate() else head_of(model)
    return check_effect(Backbone(model, None, (), head, source, seq2seq=seq2seq), method)


@pytest.mark.parametrize("init", ["A", "B"])
@pytest.mark.parametrize("family", EVERY)
def test_at_its_start_lora_on_every_map_has_an_effect(family: str, init: Any) -> None:
    assert checked(adapt(family, targets=["all"], init=init)) == ()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "t5"])
def test_a_half_precision_backbone_hears_every_adapter(family: str, dtype: torch.dtype) -> None:
    model: Any = adapt(family, targets=["all"]).to(dtype)
    for module in (*lora.lora_modules(model).values(), *(model.get_submodule(name) for name in head_of(model))):
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    for name in head_of(model):
        for part in model.get_submodule(name).modules():
            part.register_forward_pre_hook(lambda _, inputs: tuple(x.float() for x in inputs))
    assert checked(model) == ()


def test_every_other_method_has_an_effect() -> None:
    models: dict[str, Any] = {name: frozen("bert") for name in ("bitfit", "houlsby", "intrinsic", "head")}
    head = head_of(models["head"])
    bitfit.attach(models["bitfit"], head=head)
    bottleneck.attach(
        models["houlsby"], linear_maps(models["houlsby"]), head=head, placement="houlsby", seed=0, size=4,
        activation="relu",
    )  # fmt: skip
    intrinsic.attach(models["intrinsic"], head=head, seed=0, dim=8, projection="fastfood")
    for method, model in models.items():
        assert checked(model, method) == ()
    for kind in ("prefix", "prompt", "p_tuning"):
        assert checked(prompted("bert", kind), kind) == ()
        assert checked(attach(decoder("gpt2"), kind), kind) == ()


@pytest.mark.parametrize("tokens", [40, 58, 59, 60, 61, 63])
@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "opt"])
def test_virtual_tokens_may_take_nearly_all_positions(family: str, tokens: int) -> None:
    """There are 64: what fits beside them is checked, and nothing where no text fits."""
    for kind in ("prefix", "prompt"):
        assert checked(prompted(family, kind, tokens=tokens), kind) == ()
    if family in ("gpt2", "opt"):
        assert checked(attach(decoder(family), "prefix", tokens=tokens), "prefix") == ()


@pytest.mark.parametrize("family", sorted(GENERATORS))
def test_a_generators_maps_have_an_effect(family: str) -> None:
    model: Any = GENERATORS[family]().requires_grad_(False)
    lora.attach(model, linear_maps(model), head=(), **{**LORA, "targets": ["all"]})
    assert checked(model, seq2seq=family == "t5") == ()


def test_nothing_of_the_model_changes() -> None:
    model = adapt("bert").train()
    state, before = torch.get_rng_state(), {n: t.clone() for n, t in model.state_dict().items()}
    checked(model)
    assert model.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def around(module: nn.Module) -> None:
    """The planted fault: a map that is computed past its module, as a fused kernel would."""
    weight, bias = module.base.weight, module.base.bias  # type: ignore[union-attr]  # torch types attributes so
    module.forward = lambda x: nn.functional.linear(x, weight, bias)  # type: ignore[arg-type]


def test_an_adapter_that_the_backbone_computes_past_is_refused() -> None:
    model = adapt("bert")
    for module in lora.lora_modules(model).values():
        around(module)
    with pytest.raises(UserError, match=r"^method.name: lora: BertForSequenceClassification of transformers "):
        checked(model)


def test_a_part_of_the_maps_that_is_ignored_is_named() -> None:
    model = adapt("bert")
    name = next(iter(lora.lora_modules(model)))
    around(model.get_submodule(name))
    (line,) = checked(model)
    assert line.startswith("lora.targets: 1 of 4 adapted maps do not change the output") and line.endswith(name)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_prefix_handed_over_by_a_name_that_the_model_does_not_know_is_refused(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted change of the cache's name: the model takes any keyword, and reads another."""
    monkeypatch.setattr(prompts, "cache_name", lambda _model: "keys_and_values")
    model = prompted(family, "prefix")
    stock = type(model).forward

    def forward(self: Any, attention_mask: Tensor, keys_and_values: Any = None, **named: Any) -> Any:
        return stock(self, attention_mask=attention_mask[:, prompts.virtual_tokens(self).tokens :], **named)  # type: ignore[union-attr]

    monkeypatch.setattr(type(model), "forward", forward)
    with pytest.raises(UserError, match=r"ignores the virtual tokens; install another release of transformers"):
        checked(model, "prefix")


def test_a_prefix_that_generate_alone_ignores_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What transformers 5.24 did to a cache under its name of 5.23."""
    model = attach(decoder("gpt2"), "prefix")
    name = str(compat.cache_name(model))
    stock = type(model).generate

    def generate(self: Any, **named: Any) -> Any:
        del named[name]
        return stock(self, **named)

    monkeypatch.setattr(type(model), "generate", generate)
    with pytest.raises(
        UserError, match=r"^method.name: prefix: generate of GPT2LMHeadModel of transformers .* ignores"
    ):
        checked(model, "prefix")


def test_a_cache_that_is_filled_by_another_call_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted change of the cache's own signature."""

    def update(self: Any, *, keys: Tensor, values: Tensor, layer: int) -> None: ...

    monkeypatch.setattr(DynamicCache, "update", update)
    with pytest.raises(
        UserError, match=r"^method.name: prefix: .* cannot compute two short texts with it \(TypeError: "
    ):
        checked(prompted("gpt2", "prefix"), "prefix")


def test_a_backbone_that_takes_no_cache_has_no_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "cache_name", lambda _model: None)
    with pytest.raises(UserError, match=r"^method.name: 'prefix': this 'bert' backbone does not accept cached keys$"):
        prompted("bert", "prefix")


def test_adapted_maps_without_any_effect_are_named() -> None:
    """BART's own table is `shared`; its encoder and its decoder read copies."""
    with pytest.raises(UserError, match=r"ignores the trained parameters; name other maps than model\.shared in lora"):
        checked(adapt("bart", targets=["shared"]))


def test_a_model_that_cannot_compute_short_texts_ends_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = adapt("bert")

    def none(*_: Any, **__: Any) -> None:
        raise NotImplementedError("no table")

    monkeypatch.setattr(model, "forward", none)
    with pytest.raises(UserError, match=r"cannot compute two short texts with it \(NotImplementedError: no table\)"):
        checked(model)
