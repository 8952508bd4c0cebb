"""Probes: the parts are those of the dense outputs, they add up, and probing does not change training."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from loralab.backbones.first_token import narrow_last_layer
from loralab.errors import UserError
from loralab.methods.lora import linear_factors
from loralab.runs.run import run
from loralab.training.loop import Progress, unwatched
from loralab.training.probes import QUANTITIES, probing
from tests.adapted import adapt, shake
from tests.families import FAMILIES, example_batch
from tests.runs.test_run import lines
from tests.small_runs import config, cut_off, outcome

Values = dict[str, float | None]


def probe(model: Any, update: Callable[[], None], batch: dict[str, Tensor] | None = None) -> Values:
    """A probe's result for `update`, for all maps."""
    told: list[Values] = []
    batch = example_batch(model) if batch is None else batch
    watched = probing(model, linear_factors(model), [batch], every=1, tell=lambda _, values: told.append(values))
    with watched(Progress()):
        update()
    (values,) = told
    return values


def dense(model: Any, batch: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """A, scaling B, and the map's input (tokens, d_in) without padding, in float64, from the test's own hook."""
    found: dict[str, dict[str, Tensor]] = {}
    hooks = []
    for name, (module, factors) in linear_factors(model).items():

        def keep(_: nn.Module, inputs: Any, __: Any, name: str = name, factors: Any = factors) -> None:
            rows = [row[mask[: len(row)] > 0] for row, mask in zip(inputs[0], batch["attention_mask"], strict=True)]
            A, B = (p.detach().double().clone() for p in (factors.A, factors.B))
            found[name] = {"Z": torch.cat(rows).double(), "A": A, "B": factors.scaling * B}

        hooks.append(module.register_forward_hook(keep))
    model.eval()
    with torch.no_grad():
        model(**batch)
    for hook in hooks:
        hook.remove()
    return found


def share_of(part: Tensor, change: Tensor) -> float:
    return float((part * change).sum() / change.square().sum())


def root_mean_square(value: Tensor) -> float:
    return float(value.square().mean().sqrt())


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_the_three_parts_are_those_of_the_dense_outputs_and_add_up(family: str) -> None:
    model, batch = adapt(family, alpha=12.0, targets=["q", "v", "mlp"]), {}
    narrow_last_layer(model)  # BERT's query of the last layer receives only the first token
    shake(model)
    batch = example_batch(model)
    before = dense(model, batch)
    values = probe(model, lambda: shake(model, seed=1), batch)
    after = dense(model, batch)
    assert {name.rsplit("/", 1)[0] for name in values} == set(before)
    for name, old in before.items():
        new = after[name]
        Z_A = [each["Z"] @ each["A"].T for each in (old, new)]
        Z_B = [z @ each["B"].T for z, each in zip(Z_A, (old, new), strict=True)]
        dB, dZ_A, change = new["B"] - old["B"], Z_A[1] - Z_A[0], Z_B[1] - Z_B[0]
        parts = [dZ_A @ old["B"].T, Z_A[0] @ dB.T, dZ_A @ dB.T]
        torch.testing.assert_close(sum(parts), change, rtol=0, atol=1e-5)
        for i, part in enumerate(parts, start=1):
            assert values[f"{name}/delta{i}"] == pytest.approx(root_mean_square(part), rel=1e-5)
            assert values[f"{name}/share{i}"] == pytest.approx(share_of(part, change), abs=1e-5)
        dA = (new["A"] - old["A"]).T
        own = [new["Z"] @ dA @ old["B"].T, new["Z"] @ old["A"].T @ dB.T, new["Z"] @ dA @ dB.T]  # Z after the update
        for i, part in enumerate(own, start=1):
            assert values[f"{name}/own{i}"] == pytest.approx(share_of(part, own[0] + own[1] + own[2]), abs=1e-5)
        assert values[f"{name}/zA"] == pytest.approx(root_mean_square(Z_A[1]), rel=1e-5)
        assert values[f"{name}/zB"] == pytest.approx(root_mean_square(Z_B[1]), rel=1e-5)
        for factor in "AB":
            ratio = float((new[factor] - old[factor]).norm() / old[factor].norm())
            assert values[f"{name}/update_{factor}"] == pytest.approx(ratio, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_tells_of_every_adapted_map_and_shares_sum_to_one(family: str) -> None:
    model = adapt(family, targets=["all"])
    shake(model)
    values = probe(model, lambda: shake(model, seed=1))
    # T5's classifier needs only its decoder's states, but calls every map, like all others
    assert values.keys() == {f"{name}/{quantity}" for name in linear_factors(model) for quantity in QUANTITIES}
    for name in linear_factors(model):
        for kind in ("share", "own"):
            shares = [values[f"{name}/{kind}{i}"] for i in (1, 2, 3)]
            assert math.fsum(share for share in shares if share is not None) == pytest.approx(1)
    assert all(value is not None and math.isfinite(value) for value in values.values())


def test_while_b_is_zero_only_b_can_move_the_output() -> None:
    model = adapt("bert")
    first = "bert.encoder.layer.0.attention.self.query"
    factors = linear_factors(model)[first][1]

    def step_of_b() -> None:
        factors.B.data.add_(0.1)

    values = probe(model, step_of_b)
    assert (values[f"{first}/delta1"], values[f"{first}/delta3"]) == (0, 0)
    assert values[f"{first}/share2"] == pytest.approx(1)
    assert (values[f"{first}/update_A"], values[f"{first}/update_B"]) == (0, None), "no ratio to a B of zeros"


def test_no_update_has_no_shares() -> None:
    model = adapt("bert")
    shake(model)
    values = probe(model, lambda: None)
    for name in linear_factors(model):
        assert [values[f"{name}/{q}"] for q in QUANTITIES[:9]] == [0] * 3 + [None] * 6


def test_a_change_of_the_input_alone_is_delta1() -> None:
    model = adapt("bert")
    shake(model)
    last = "bert.encoder.layer.1.attention.self.value"

    def step_below() -> None:
        linear_factors(model)["bert.encoder.layer.0.attention.self.value"][1].B.data.mul_(3)

    values = probe(model, step_below)
    delta1 = values[f"{last}/delta1"]
    assert delta1 is not None and delta1 > 0
    assert [values[f"{last}/{q}"] for q in ("delta2", "delta3", "share1", "update_A", "update_B")] == [0, 0, 1, 0, 0]
    assert [values[f"{last}/own{i}"] for i in (1, 2, 3)] == [None] * 3, "its own factors did nothing"


def test_padding_counts_for_nothing() -> None:
    def told(width: int) -> Values:
        model = adapt("bert")
        shake(model)
        batch = {name: value[:, :width] if value.ndim > 1 else value for name, value in example_batch(model).items()}
        batch = {name: value[1:] for name, value in batch.items()}  # out of 7 tokens
        return probe(model, lambda: shake(model, seed=1), batch)

    narrow, wide = told(7), told(10)
    assert narrow == pytest.approx(wide, rel=1e-4)


def test_rows_in_two_batches_tell_what_they_tell_in_one() -> None:
    def told(*rows: slice) -> Values:
        model = adapt("bert")
        shake(model)
        batches = [{name: value[at] for name, value in example_batch(model).items()} for at in rows]
        told: list[Values] = []
        maps = linear_factors(model)
        with probing(model, maps, batches, every=1, tell=lambda _, values: told.append(values))(Progress()):
            shake(model, seed=1)
        return told[0]

    assert told(slice(0, 1), slice(1, 2)) == pytest.approx(told(slice(0, 2)), rel=1e-4)


def test_nothing_is_drawn_and_the_model_is_left_as_it_was() -> None:
    model = adapt("bert", dropout=0.5)
    shake(model)
    model.train()
    generators = torch.get_rng_state()
    first, second = (probe(model, lambda: None) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), generators)
    assert first == second, "dropout is off"
    assert all(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("family", ["bert", "t5", "deberta_v2", "llama"])
def test_rounding_to_bf16_is_not_taken_for_a_change(family: str) -> None:
    def told(dtype: torch.dtype) -> Values:
        model = adapt(family)
        shake(model)
        for parameter in model.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.bfloat16().to(dtype)
        before = [(p.dtype, p.data_ptr()) for p in model.parameters()]

        def step() -> None:
            for _, factors in linear_factors(model).values():
                factors.A.data.mul_(1 + 1e-4)
                factors.B.data.mul_(1 + 1e-4)

        values = probe(model, step)
        assert [(p.dtype, p.data_ptr()) for p in model.parameters()] == before
        return values

    assert told(torch.bfloat16) == pytest.approx(told(torch.float32), rel=1e-3, abs=1e-12)


def test_it_looks_at_the_first_update_and_at_every_kth() -> None:
    model = adapt("bert")
    told: list[int] = []
    tell: Any = lambda progress, _: told.append(progress.step)  # noqa: E731
    watched = probing(model, linear_factors(model), [example_batch(model)], every=4, tell=tell)
    progress = Progress()
    for _ in range(12):
        with watched(progress):
            progress.step += 1
    assert told == [1, 4, 8, 12]
    assert probing(model, {}, [], every=None, tell=tell) is unwatched


def test_an_adapter_of_embeddings_alone_has_nothing_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^probe\.every: got 5, and no linear map has an adapter; "):
        run(config(tmp_path, "lora.targets=[word_embeddings]", "probe.every=5"))
    assert not list(tmp_path.glob("runs/*/config.yaml"))
    record = run(config(tmp_path, "lora.targets=[word_embeddings,q]", "probe.every=5"))
    assert record["status"] == "success"
    assert not any("embeddings" in name for line in probes(tmp_path) for name in line["values"])


@pytest.mark.parametrize("method", ["head", "full"])
def test_a_method_without_factors_is_one_line(tmp_path: Path, method: str) -> None:
    with pytest.raises(
        UserError,
        match=rf"^probe\.every: got 5, and with method={method} there are no A and B to probe; .* without dora$",
    ):
        config(tmp_path, f"method={method}", "probe.every=5")


def probes(store: Path) -> list[dict[str, Any]]:
    return [line for line in lines(store) if line["split"] == "probe"]


OPTIONS = ("probe.every=5", "lora.dropout=0.1", "model.dropout=0.1")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_is_the_same_to_the_byte_with_and_without_probes(tmp_path: Path, threads: int, precision: str) -> None:
    same = (f"train.threads={threads}", f"train.precision={precision}")
    for name, options in (("with", ("probe.every=5",)), ("without", ())):
        run(config(tmp_path / name, *same, *options))
    one, other = outcome(tmp_path / "with"), outcome(tmp_path / "without")
    seen = [line for line in one["lines"] if line["split"] == "probe"]
    assert [line["step"] for line in seen] == [1, 5, 10]
    assert one | {"lines": [line for line in one["lines"] if line["split"] != "probe"]} == other
    for line, logged in zip(seen, (lines(tmp_path / "without")[at] for at in (0, 4, 10)), strict=True):
        assert (line["lr_A"], line["lr_B"]) == (logged["lr_A"], logged["lr_B"])
    assert all(value is None or value >= 0 for value in seen[0]["values"].values())
    assert {value for name, value in seen[0]["values"].items() if "/delta" in name} == {0}, "the warm-up's first step"


@pytest.mark.parametrize(("threads", "at"), [(1, 5), (1, 8), (2, 5)])
def test_a_run_with_probes_goes_on_to_the_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, at: int
) -> None:
    """Interrupted next to a probed update and between two: a probe must not draw from dropout's generator."""
    options = (*OPTIONS, f"train.threads={threads}", "train.eval_every=12")
    run(config(tmp_path / "whole", *options))
    cut_off(config(tmp_path / "cut", *options), monkeypatch, at=at)
    record = run(config(tmp_path / "cut", *options))
    assert record["timing"]["steps_executed"] == 12
    assert len(probes(tmp_path / "cut")) == 3
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


def test_a_diverging_run_has_nulls_and_no_nan(tmp_path: Path) -> None:
    options = ("optim.lr=1e30", "optim.clip=null", "train.steps=40", "optim.warmup=0", "probe.every=1")
    assert run(config(tmp_path, *options))["status"] == "diverged"
    text = next(tmp_path.glob("runs/*/metrics.jsonl")).read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert None in json.loads(text.splitlines()[-2])["values"].values()
