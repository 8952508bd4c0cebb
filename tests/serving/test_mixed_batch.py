"""Mixed batches: each row's logits are those of its adapter, whatever the adapters of the other rows."""

import threading
import time
from typing import Any

import pytest
import torch
from torch import Tensor

from loralab.errors import UserError
from loralab.methods.lora import merge
from loralab.serving.adapters import TaskAdapter, adapter_of
from loralab.serving.mixed_batch import AdapterBank
from loralab.studies.stats import ratio_interval
from tests.families import FAMILIES
from tests.served import DIFFERENT, adapters, bare, batch, logits, minilm, task

SERVED = sorted(FAMILIES.keys() - {"deberta_v2"})
MIXED = ["task1", "task0", "task3", "task3", "task2", "task0", "task1", "task2"]


def different(family: str) -> dict[str, Any]:
    return {f"task{at}": task(family, seed=at, **settings) for at, settings in enumerate(DIFFERENT)}


def alone(models: dict[str, Any], names: list[str], inputs: dict[str, Tensor]) -> list[Tensor]:
    """Each row's logits if the whole batch goes through the model of the row's adapter."""
    return [logits(models[name], inputs)[row] for row, name in enumerate(names)]


def assert_rows(found: Tensor, expected: list[Tensor], *, rtol: float = 1e-5, atol: float = 1e-5) -> None:
    for row, own in zip(found, expected, strict=True):
        torch.testing.assert_close(row[: len(own)], own, rtol=rtol, atol=atol)
        assert (row[len(own) :] == -torch.inf).all()


@pytest.mark.parametrize("family", SERVED)
def test_a_mixed_batch_equals_each_adapter_alone(family: str) -> None:
    """The tasks differ in rank, maps, scaling, biases and number of classes; texts have mixed lengths."""
    models, model = different(family), bare(family)
    inputs = batch(model)
    bank = AdapterBank(model, adapters(models))
    expected = alone(models, MIXED, inputs)
    found = bank(MIXED, **inputs)
    assert found.dtype == torch.float32 and found.shape == (8, 5)
    atol = 1e-5 * max(1.0, *(float(row.abs().max()) for row in expected))
    assert_rows(found, expected, atol=atol)
    backward = bank(MIXED[::-1], **inputs)
    assert_rows(backward, alone(models, MIXED[::-1], inputs), atol=atol)


def test_the_other_rows_adapters_change_nothing_of_a_row() -> None:
    models, model = different("bert"), bare("bert")
    inputs, bank = batch(model), AdapterBank(model, adapters(models))
    found = bank(MIXED, **inputs)
    for names in (["task1"] * 8, ["task1", *["task2"] * 7], ["task1", *MIXED[:0:-1]]):
        torch.testing.assert_close(bank(names, **inputs)[0], found[0], rtol=1e-6, atol=1e-6)
    assert (found[1, :3] - bank(["task3"] * 8, **inputs)[1, :3]).abs().max() > 0.01


def test_labels_are_not_shown_and_one_row_is_a_batch() -> None:
    models, model = different("roberta"), bare("roberta")
    bank, inputs = AdapterBank(model, adapters(models)), batch(bare("roberta"), rows=1)
    found = bank(["task1"], **inputs, labels=torch.tensor([4]))
    assert_rows(found, alone(models, ["task1"], inputs))


def test_the_model_itself_computes_as_before() -> None:
    models, model = different("bert"), bare("bert")
    inputs = batch(model)
    start = logits(model, inputs)
    bank = AdapterBank(model, adapters(models))
    bank(MIXED, **inputs)
    assert torch.equal(logits(model, inputs), start)
    with pytest.raises(UserError):
        bank(["task9"] * 8, **inputs)
    assert torch.equal(logits(model, inputs), start)
    bank.close()
    assert not any(module._forward_hooks for module in model.modules())


def test_two_banks_share_a_model() -> None:
    models, model = different("gpt2"), bare("gpt2")
    inputs, made = batch(model), adapters(models)
    first = AdapterBank(model, {name: made[name] for name in ("task0", "task1")})
    second = AdapterBank(model, {name: made[name] for name in ("task2", "task3")})
    for bank, names in ((first, ["task0", "task1"] * 4), (second, ["task3", "task2"] * 4)):
        assert_rows(bank(names, **inputs), alone(models, names, inputs), atol=1e-4)


def test_threads_that_share_a_bank_get_their_own_rows() -> None:
    models, model = different("bert"), bare("bert")
    bank = AdapterBank(model, adapters(models))
    asks = [([MIXED[(row * step + step) % 8] for row in range(8)], batch(model, 8, 8 + step)) for step in range(1, 5)]
    serial = [bank(names, **inputs) for names, inputs in asks]
    found: dict[int, list[Tensor]] = {}
    start = threading.Barrier(len(asks))

    def ask(at: int) -> None:
        start.wait()
        names, inputs = asks[at]
        found[at] = [bank(names, **inputs) for _ in range(20)]

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(len(asks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for at, expected in enumerate(serial):
        assert all(torch.equal(each, expected) for each in found[at]) and len(found[at]) == 20


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_a_bf16_backbone_serves_them_to_its_own_rounding(family: str) -> None:
    models, model = different(family), bare(family).to(torch.bfloat16)
    inputs, bank = batch(model), AdapterBank(model, adapters(models))
    expected = alone(models, MIXED, inputs)
    scale = max(float(row.abs().max()) for row in expected)
    assert_rows(bank(MIXED, **inputs), expected, rtol=0, atol=0.05 * scale)


def test_what_has_no_form_by_rows_is_refused_in_one_line() -> None:
    model = bare("deberta_v2")
    bank = AdapterBank(model, adapters({"a": task("deberta_v2", seed=1)}))
    with pytest.raises(UserError, match=r"computes on \(1, \d+, 32\) for 8 rows, .*one at a time \(Switch\)"):
        bank(["a"] * 8, **batch(model))
    model = bare("bert")
    table = {"bert.embeddings.word_embeddings": (torch.zeros(1, 100), torch.zeros(32, 1), 1.0)}
    with pytest.raises(UserError, match=r"^AdapterBank: bert.embeddings.word_embeddings is an embedding"):
        AdapterBank(model, {"a": TaskAdapter(table, {})})
    gain = {"bert.embeddings.LayerNorm.weight": torch.ones(32)}
    with pytest.raises(UserError, match=r"LayerNorm \(LayerNorm; weight\) is trained whole"):
        AdapterBank(model, {"a": TaskAdapter({}, gain)})
    assert not any(module._forward_hooks for module in model.modules())


def test_a_row_without_a_name_and_a_name_without_an_adapter_are_refused() -> None:
    model = bare("bert")
    bank = AdapterBank(model, adapters({"a": task("bert", seed=1), "b": task("bert", seed=2)}))
    with pytest.raises(UserError, match=r"^AdapterBank: 7 names for 8 rows of input_ids; name one for each row$"):
        bank(["a"] * 7, **batch(model))
    with pytest.raises(UserError, match=r"^AdapterBank: no adapter 'c'; there are: a, b$"):
        bank([*"aaaabbbc"], **batch(model))


@pytest.mark.slow
def test_eight_adapters_on_minilm_equal_eight_passes_and_are_faster() -> None:
    """Faster than eight merged models, which need no switching; paired CPU times of one thread."""
    made = [minilm(seed=seed) for seed in range(8)]
    names = [f"task{at}" for at in range(8) for _ in range(4)]
    bank = AdapterBank(minilm().model, {f"task{at}": adapter_of(b.model, b.head) for at, b in enumerate(made)})
    inputs = batch(bank.model, rows=32, length=24)
    groups = [{key: value[4 * at : 4 * at + 4] for key, value in inputs.items()} for at in range(8)]
    models = {f"task{at}": b.model for at, b in enumerate(made)}
    assert_rows(bank(names, **inputs), alone(models, names, inputs))

    for model in models.values():
        merge(model)
    seconds: dict[str, list[float]] = {"bank": [], "passes": []}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for pair in range(24):
            for kind in ("bank", "passes")[:: 1 if pair % 2 else -1]:
                began = time.thread_time()
                if kind == "bank":
                    bank(names, **inputs)
                else:
                    passes = [logits(model, group) for model, group in zip(models.values(), groups, strict=True)]
                seconds[kind].append(time.thread_time() - began)
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(torch.cat(passes), bank(names, **inputs), rtol=1e-5, atol=1e-5)
    found = ratio_interval(seconds["bank"][4:], seconds["passes"][4:])
    print(f"bank / passes {found.estimate:.3f} [{found.low:.3f}, {found.high:.3f}]")
    assert found.high < 1
