"""Full fine-tuning on twelve families: it starts at the checkpoint, trains every tensor, and keeps them in fp32."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from loralab.backbones.load import Backbone
from loralab.methods import full, lora
from loralab.training.evaluate import forward
from loralab.training.gradient import backward
from loralab.training.optim import adamw, param_groups, param_roles
from loralab.training.threads import Workers
from tests.adapted import LORA, head_of
from tests.backbones.checkpoints import find, take
from tests.families import FAMILIES, example_batch, save_checkpoint

CPU = torch.device("cpu")
LR = 1e-4  # a bf16 weight of 0.1 would not notice an update of this size
families = pytest.mark.parametrize("family", FAMILIES)
in_fp32_and_bf16 = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


def backbone(family: str, checkpoints: Path) -> Backbone:
    """The family's tiny base model as it comes from disk, with a new head."""
    if not (checkpoints / family).is_dir():
        save_checkpoint(FAMILIES[family]().base_model, checkpoints / family)
    return take(find(checkpoints / family, checkpoints / "digests"))


def whole(family: str, checkpoints: Path, dtype: torch.dtype = torch.float32) -> Any:
    loaded = backbone(family, checkpoints)
    full.attach(loaded.model, head=loaded.head, device=CPU, dtype=dtype)
    return loaded.model


def groups(model: Any, **settings: Any) -> list[dict[str, Any]]:
    given = {"lr": LR, "ratio": 1.0, "head_lr": None, "embedding_lr": 1e-6, "weight_decay": 0.0, **settings}
    return param_groups(model, head=head_of(model), **given)


def train(model: Any, steps: int, workers: int = 1) -> list[float]:
    """The losses of updates on one batch, as the loop makes them."""
    optimizer, parameters = adamw(groups(model), betas=(0.9, 0.999), eps=1e-8), list(model.parameters())
    scaler, losses = torch.amp.GradScaler("cpu", enabled=False), []
    with Workers(workers) as at_work:
        for _ in range(steps):
            loss = backward(
                model,
                example_batch(model),
                loss_of=cross_entropy,
                scaler=scaler,
                parameters=parameters,
                workers=at_work,
                parts=workers,
            )
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    return losses


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@families
def test_before_the_first_step_it_is_the_backbone_and_so_is_lora(family: str, checkpoints: Path) -> None:
    loaded, adapted = backbone(family, checkpoints), backbone(family, checkpoints)
    batch = example_batch(loaded.model)
    with torch.no_grad():
        before = forward(loaded.model, batch)
        full.attach(loaded.model, head=loaded.head, device=CPU, dtype=torch.float32)
        lora.attach(adapted.model, adapted.maps, head=adapted.head, **LORA)
        assert torch.equal(forward(loaded.model, batch), before)
        assert torch.equal(forward(adapted.model, batch), before)


@in_fp32_and_bf16
@families
def test_one_step_moves_every_tensor_and_leaves_it_in_fp32(family: str, dtype: torch.dtype, checkpoints: Path) -> None:
    """In bf16 as well: no update is lost to the precision of the products."""
    model = whole(family, checkpoints, dtype)
    before = values(model)
    first, second = train(model, 2)
    assert second < first
    after = values(model)
    assert [name for name in before if torch.equal(before[name], after[name])] == []
    assert {value.dtype for value in after.values()} == {torch.float32}


@families
def test_the_losses_of_bf16_are_those_of_fp32_within_its_rounding(family: str, checkpoints: Path) -> None:
    exact, rounded = (train(whole(family, checkpoints, dtype), 5) for dtype in (torch.float32, torch.bfloat16))
    assert rounded == pytest.approx(exact, rel=2e-2)
    assert rounded != exact


def test_every_thread_multiplies_in_bf16_and_the_head_in_fp32(checkpoints: Path) -> None:
    """Autocast is each thread's own: a worker that were not under it would compute in fp32."""
    model = whole("bert", checkpoints, torch.bfloat16).train()
    seen: dict[str, set[tuple[int, torch.dtype]]] = {"map": set(), "head": set()}
    together = threading.Barrier(2, timeout=20)  # so that each of two workers takes a shard

    def wait(*_: Any) -> None:
        together.wait()

    def note(place: str, output: Tensor) -> None:
        seen[place].add((threading.get_ident(), output.dtype))

    query = model.get_submodule("bert.encoder.layer.0.attention.self.query")
    query.register_forward_hook(lambda _module, _inputs, output: note("map", output))
    model.classifier.register_forward_hook(lambda _module, _inputs, output: note("head", output))
    model.register_forward_pre_hook(wait)
    train(model, 1, workers=2)
    assert len(seen["map"]) == len(seen["head"]) == 2
    assert {dtype for _, dtype in seen["map"]} == {torch.bfloat16}
    assert {dtype for _, dtype in seen["head"]} == {torch.float32}
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("family", ["bert", "deberta_v2"])  # DeBERTa uses a weight twice in one pass
def test_two_threads_in_bf16_repeat_to_the_bit(family: str, checkpoints: Path) -> None:
    first, second = (whole(family, checkpoints, torch.bfloat16) for _ in range(2))
    assert train(first, 5, workers=2) == train(second, 5, workers=2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_roles_come_from_the_tensors_of_each_module(checkpoints: Path) -> None:
    bert, t5, gpt2 = (whole(family, checkpoints) for family in ("bert", "t5", "gpt2"))
    roles = param_roles(bert, head_of(bert))
    layer = "bert.encoder.layer.0"
    assert roles["bert.embeddings.word_embeddings.weight"] == "weight"
    assert roles[f"{layer}.attention.self.query.weight"] == "weight"
    assert roles[f"{layer}.attention.self.query.bias"] == "bias"
    assert {roles[f"{layer}.output.LayerNorm.{leaf}"] for leaf in ("weight", "bias")} == {"norm"}
    assert roles["classifier.weight"] == roles["classifier.bias"] == "head"
    t5_roles = param_roles(t5, head_of(t5))
    assert t5_roles["transformer.decoder.final_layer_norm.weight"] == "norm"  # a class of T5's own
    assert param_roles(gpt2, head_of(gpt2))["transformer.h.0.attn.c_attn.weight"] == "weight"  # Conv1D


@families
def test_decay_reaches_matrices_and_embeddings_alone_all_at_one_rate(family: str, checkpoints: Path) -> None:
    model = whole(family, checkpoints)
    found = groups(model, weight_decay=0.1)
    assert {group["name"] for group in found} <= {"weight", "bias", "norm", "head", "head.bias"}
    assert {group["lr"] for group in found} == {LR}
    assert sum(len(group["params"]) for group in found) == len(list(model.parameters()))
    for group in found:
        dimensions = {parameter.ndim for parameter in group["params"]}
        assert dimensions == ({2} if group["weight_decay"] else {1}), group["name"]
