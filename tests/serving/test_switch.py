"""Switching: the model becomes each task's, whatever it was before; bit-exact if W0 is kept."""

from typing import Any

import pytest
import torch

from loralab.errors import UserError
from loralab.serving.adapters import TaskAdapter
from loralab.serving.switch import Switch
from tests.families import FAMILIES
from tests.served import DIFFERENT, adapters, bare, batch, logits, task

families = pytest.mark.parametrize("family", sorted(FAMILIES))
Tasks = dict[str, Any]


def different(family: str) -> Tasks:
    return {f"task{at}": task(family, seed=at, **settings) for at, settings in enumerate(DIFFERENT)}


def state(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@families
@pytest.mark.parametrize("exact", [True, False])
def test_the_model_is_each_tasks_in_turn_and_bare_again(family: str, exact: bool) -> None:
    """The tasks differ in rank, maps, scaling, biases and number of classes."""
    models, model = different(family), bare(family)
    inputs, before = batch(model), state(model)
    start = logits(model, inputs)
    switch = Switch(model, adapters(models), exact=exact)
    for name in [*models, *reversed(models)]:
        switch.use(name)
        alone = logits(models[name], inputs)
        assert switch.active == name and logits(model, inputs).shape == alone.shape
        torch.testing.assert_close(logits(model, inputs), alone, rtol=1e-5, atol=2e-5)
        assert alone.shape != start.shape or (alone - start).abs().max() > 0.01
    switch.use(None)
    assert switch.active is None
    if exact:
        assert same(state(model), before)
    torch.testing.assert_close(logits(model, inputs), start, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_thousand_switches_end_where_one_does_bit_for_bit(family: str, dtype: torch.dtype) -> None:
    models = adapters(different(family))
    model, fresh = bare(family).to(dtype), bare(family).to(dtype)
    often, once = Switch(model, models), Switch(fresh, models)
    names = [*models, None]
    for step in range(1000):
        often.use(names[(step * step + step // 7) % len(names)])
    for name in names:
        often.use(name)
        once.use(None)
        once.use(name)
        assert same(state(model), state(fresh))


@pytest.mark.parametrize(
    ("dtype", "least", "most"), [(torch.float32, 1e-8, 1e-4), (torch.bfloat16, 1e-3, 2.0)], ids=str
)
def test_without_the_copy_of_w0_each_switch_leaves_its_rounding_behind(
    dtype: torch.dtype, least: float, most: float
) -> None:
    models = adapters(different("bert"))
    model = bare("bert").to(dtype)
    before = state(model)
    switch = Switch(model, models, exact=False)
    for step in range(1000):
        switch.use([*models][step % len(models)])
    switch.use(None)
    name = "bert.encoder.layer.0.attention.self.query.weight"
    moved = float((state(model)[name].float() - before[name].float()).abs().max() / before[name].float().abs().max())
    assert least < moved < most and switch.nbytes_kept == 0


def test_what_is_kept_is_the_frozen_weight_of_each_adapted_map_once() -> None:
    models = adapters({"a": task("bert", seed=1, targets=["q"]), "b": task("bert", seed=2, targets=["q", "v"])})
    assert Switch(bare("bert"), models).nbytes_kept == 2 * 2 * 32 * 32 * 4
    assert Switch(bare("bert").to(torch.bfloat16), models).nbytes_kept == 2 * 2 * 32 * 32 * 2


def test_a_map_that_shares_its_table_gets_its_own() -> None:
    """T5's encoder and decoder share a table: a task that adapts the encoder's does not change the decoder's."""
    model = bare("t5")
    name = next(n for n, m in model.named_modules() if n.endswith("encoder.embed_tokens"))
    table = model.get_submodule(name).weight
    A, B = torch.randn(2, table.shape[0]), torch.randn(32, 2)
    switch = Switch(model, {"task": TaskAdapter({name: (A, B, 0.5)}, {})})
    before = table.clone()
    switch.use("task")
    others = [m.weight for n, m in model.named_modules() if isinstance(m, torch.nn.Embedding) and m.weight is table]
    assert others and all(torch.equal(weight, before) for weight in others)
    torch.testing.assert_close(model.get_submodule(name).weight, before + 0.5 * (B @ A).T)


@pytest.mark.parametrize("exact", [True, False])
def test_a_table_may_be_adapted_by_one_task_and_brought_whole_by_another(exact: bool) -> None:
    model, name = bare("bert"), "bert.embeddings.word_embeddings"
    before = model.get_submodule(name).weight.detach().clone()
    whole, A, B = torch.randn_like(before), torch.randn(2, len(before)), torch.randn(before.shape[1], 2)
    tasks = {"factors": TaskAdapter({name: (A, B, 0.5)}, {}), "whole": TaskAdapter({}, {f"{name}.weight": whole})}
    switch = Switch(model, tasks, exact=exact)
    wanted = {"factors": before + 0.5 * (B @ A).T, "whole": whole, None: before}
    for task_name in ("whole", "factors", "whole", None, "factors", None):
        switch.use(task_name)
        torch.testing.assert_close(model.get_submodule(name).weight.detach(), wanted[task_name])


def test_a_name_that_is_not_there_is_refused_and_changes_nothing() -> None:
    model = bare("bert")
    switch = Switch(model, adapters({"a": task("bert", seed=1)}))
    switch.use("a")
    before = state(model)
    with pytest.raises(UserError, match=r"^Switch: no adapter 'b'; there are: a$"):
        switch.use("b")
    assert switch.active == "a" and same(state(model), before)


def test_nothing_is_trainable_that_was_not() -> None:
    model = bare("roberta")
    switch = Switch(model, adapters({"a": task("roberta", seed=1, bias="all")}))
    before = {name: p.dtype for name, p in model.named_parameters()}
    switch.use("a")
    assert {name: p.dtype for name, p in model.named_parameters()} == before
    assert not any(p.requires_grad for p in model.parameters())
