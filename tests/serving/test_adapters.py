"""Adapters to serve: equal in memory and on disk, refused if they do not fit the backbone; rounding of merging."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from loralab import interchange, serving, switch
from loralab.errors import UserError
from loralab.methods.formats.peft_lora import attach_peft, save_peft
from loralab.methods.lora import lora_modules, merge, unmerge
from loralab.serving.adapters import TaskAdapter, adapter_of, check_fit, read_adapter
from loralab.serving.switch import Switch
from loralab.store.run_directory import RunDirectory
from tests.adapted import adapt, head_of, shake
from tests.families import FAMILIES
from tests.served import bare, batch, logits, minilm, task

families = pytest.mark.parametrize("family", sorted(FAMILIES))


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    return float((found.float() - expected.float()).abs().max() / expected.float().abs().max())


def hidden(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    with torch.inference_mode():
        found: Tensor = model.base_model(**inputs).last_hidden_state
    return found


def tensors(adapter: TaskAdapter) -> dict[str, Tensor]:
    factors = {f"{name} {key}": t for name, (A, B, _) in adapter.updates.items() for key, t in (("A", A), ("B", B))}
    return factors | adapter.whole


@families
def test_an_adapter_read_back_is_the_one_in_memory_bit_for_bit(family: str, tmp_path: Path) -> None:
    model = adapt(family, bias="all", targets=["all"])
    shake(model)
    save_peft(model, tmp_path, head=head_of(model), base_model="tiny")
    ours, theirs = adapter_of(model, head_of(model)), read_adapter(tmp_path)
    assert {name: s for name, (_, _, s) in ours.updates.items()} == {n: s for n, (_, _, s) in theirs.updates.items()}
    own, read = tensors(ours), tensors(theirs)
    assert own.keys() == read.keys() and ours.whole
    assert all(torch.equal(own[name], read[name]) for name in own)
    assert ours.nbytes == theirs.nbytes == sum(4 * p.numel() for p in own.values())


def test_a_run_directory_stands_for_its_adapter(finished: RunDirectory) -> None:
    run, folder = (tensors(read_adapter(path)) for path in (finished.path, finished.adapter))
    assert run.keys() == folder.keys() and all(torch.equal(run[name], folder[name]) for name in run)
    with pytest.raises(UserError, match=r"no adapter_config\.json there"):
        read_adapter(finished.path.parent)


def test_lora_beside_a_prefix_is_refused_for_it_would_be_served_without_the_prefix(
    finished: RunDirectory, tmp_path: Path
) -> None:
    shutil.copytree(finished.adapter, tmp_path / "adapter")
    shutil.copytree(finished.adapter, tmp_path / "adapter" / "prefix")
    for path in (tmp_path, tmp_path / "adapter"):
        with pytest.raises(UserError, match=r"LoRA with a prefix \(method=lora_prefix\)"):
            read_adapter(path)


def test_what_was_made_for_another_model_is_refused_in_one_line() -> None:
    model = bare("bert")
    good = adapter_of(task("bert", seed=1), head_of(model))
    name = "bert.encoder.layer.0.attention.self.query"
    A, B, scaling = good.updates[name]

    def refused(line: str, **changed: dict[str, Any]) -> None:
        whole = TaskAdapter(good.updates | changed.get("updates", {}), good.whole | changed.get("whole", {}))
        with pytest.raises(UserError, match=line) as error:
            check_fit(model, {"task": whole}, key="Switch")
        assert "\n" not in str(error.value)

    check_fit(model, {"task": good}, key="Switch")
    refused(rf"^Switch: 'task' adapts {name}, 31 to 32; the model has 32 to 32", updates={name: (A[:, 1:], B, scaling)})
    refused("adapts bert.query, 32 to 32; the model has no such map", updates={"bert.query": (A, B, scaling)})
    refused("the model has no such parameter", whole={"score.weight": A})
    refused(r"brings classifier.weight, \(3, 31\); the model has \(3, 32\)", whole={"classifier.weight": A[:3, 1:]})
    inside = "bert.pooler.dense.bias"
    refused(rf"brings {inside}, \(31,\); the model has \(32,\)", whole={inside: torch.zeros(31)})
    seven = {"classifier.weight": torch.zeros(7, 32), "classifier.bias": torch.zeros(7)}
    check_fit(model, {"task": TaskAdapter({}, seven)}, key="Switch")
    for missing in seven:
        with pytest.raises(UserError, match=r"brings classifier\.\w+ for 7 outputs, but its classifier\.\w+ has 3"):
            check_fit(model, {"task": TaskAdapter({}, {k: v for k, v in seven.items() if k != missing})}, key="Switch")
    with pytest.raises(UserError, match="has an adapter in place already"):
        check_fit(adapt("bert"), {"task": good}, key="Switch")
    with pytest.raises(UserError, match="no adapters"):
        check_fit(model, {}, key="Switch")


@families
def test_an_adapter_read_back_fits_the_backbone_as_it_is_loaded(family: str, tmp_path: Path) -> None:
    model = task(family, seed=1, targets=["all"], bias="all")
    save_peft(model, tmp_path, head=head_of(model), base_model="tiny")
    served, inputs = bare(family), batch(model)
    Switch(served, {"task": read_adapter(tmp_path)}).use("task")
    torch.testing.assert_close(logits(served, inputs), logits(model, inputs), rtol=1e-5, atol=2e-5)


@pytest.mark.slow
def test_in_fp32_merging_changes_minilm_by_a_millionth_and_unmerging_takes_it_back() -> None:
    """Measured on the hidden states, relative to their largest: logits are small differences of large products."""
    model: Any = minilm(seed=1).model
    modules = lora_modules(model)
    inputs = batch(model, rows=16, length=40)
    start, unmerged = {name: module.weight.clone() for name, module in modules.items()}, hidden(model, inputs)
    merge(model)
    assert all(not torch.equal(module.weight, start[name]) for name, module in modules.items())
    assert 0 < relative(hidden(model, inputs), unmerged) < 1e-6
    unmerge(model)
    assert 0 < max(relative(module.weight, start[name]) for name, module in modules.items()) < 1e-6
    assert relative(hidden(model, inputs), unmerged) < 1e-6


def test_in_bf16_merging_rounds_each_weight_once_to_8_bits() -> None:
    """The relative error of W is at most 2^-9; unmerging rounds again and does not restore W0 exactly."""
    model = task("bert", seed=3).to(torch.bfloat16)
    modules = lora_modules(model)
    for module in modules.values():
        module.blocks.float()  # the factors stay in fp32 on a bf16 backbone
    start = {name: module.weight.clone() for name, module in modules.items()}
    exact = {name: module.weight.float() + module.delta() for name, module in modules.items()}
    merge(model)
    for name, module in modules.items():
        error = (module.weight.float() - exact[name]).abs()
        assert (error <= 2**-8 * exact[name].abs()).all() and error.any()
    unmerge(model)
    largest = max(float(exact[name].abs().max()) for name in modules)
    off = max(float((modules[name].weight.float() - start[name].float()).abs().max()) for name in modules)
    assert 0 < off <= 2 * 2**-8 * largest


@pytest.mark.slow
def test_in_bf16_merged_minilm_is_as_far_from_fp32_as_the_unmerged_one() -> None:
    """Merging adds no error beyond that of bf16."""
    model, exact = minilm(torch.bfloat16, seed=1).model, minilm(seed=1).model
    inputs = batch(model, rows=16, length=40)
    expected = logits(exact, inputs)
    unmerged = relative(logits(model, inputs), expected)
    merge(model)
    merged = relative(logits(model, inputs), expected)
    print(f"off by {unmerged:.4f} unmerged, {merged:.4f} merged")
    assert 1e-4 < merged < 3 * unmerged < 0.3


def test_scripts_find_what_serves_under_its_short_names() -> None:
    assert (interchange.attach_peft, serving.read_adapter, switch.Switch) == (attach_peft, read_adapter, Switch)
