"""theta_0 + R z: initially the backbone; R is a fixed projection that keeps lengths; the gradient of z is R^T g."""

import copy
import math
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from loralab.errors import UserError
from loralab.methods import intrinsic
from loralab.methods.formats.plain import load_model, save_model
from loralab.methods.intrinsic import AT_ONCE
from loralab.training.gradient import backward
from loralab.training.optim import param_groups, param_roles
from loralab.training.threads import Workers
from tests.adapted import frozen, head_of, logits, shake
from tests.families import FAMILIES, example_batch

DIM = 20
families = pytest.mark.parametrize("family", FAMILIES)
projections = pytest.mark.parametrize("projection", ["fastfood", "sparse"])


def attached(family: str, projection: Any = "fastfood", *, dim: int = DIM, seed: int = 0) -> Any:
    model = frozen(family)
    intrinsic.attach(model, head=head_of(model), dim=dim, projection=projection, seed=seed)
    return model


def backbone(model: Any) -> dict[str, Tensor]:
    """The weights that the modules see, by name; those of the head and z left out."""
    plain = FAMILIES[model.config.model_type.replace("-", "_")]()
    found = {}
    for name, _ in plain.named_parameters():
        if not any(name.startswith(f"{path}.") for path in head_of(plain)):
            owner, _, leaf = name.rpartition(".")
            found[name] = getattr(model.get_submodule(owner), leaf)
    return found


def put(model: Any, z: Tensor) -> None:
    with torch.no_grad():
        model.intrinsic.z.copy_(z)


def explicit(model: Any) -> Tensor:
    """R (N, d), a column for each unit vector."""
    start = torch.cat([weight.detach().flatten() for weight in backbone(model).values()])
    columns = []
    for unit in torch.eye(len(model.intrinsic.z)):
        put(model, 1e3 * unit)  # far, so that the difference keeps its digits
        moved = torch.cat([weight.detach().flatten() for weight in backbone(model).values()])
        columns.append((moved - start) / 1e3)
    put(model, torch.zeros(len(model.intrinsic.z)))
    return torch.stack(columns, 1)


@projections
@families
def test_before_the_first_step_it_is_the_backbone(family: str, projection: str) -> None:
    assert torch.equal(logits(attached(family, projection)), logits(FAMILIES[family]()))


@projections
@families
def test_every_weight_of_the_backbone_moves_and_z_and_the_head_alone_are_trained(family: str, projection: str) -> None:
    model = attached(family, projection)
    start = {name: weight.clone() for name, weight in backbone(model).items()}
    put(model, torch.ones(DIM))
    assert [name for name, weight in backbone(model).items() if torch.equal(weight, start[name])] == []
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    head = head_of(frozen(family))
    assert {name for name in trainable if not name.startswith(head)} == {"intrinsic.z"}
    assert param_roles(model, head)["intrinsic.z"] == "weight"
    assert (model.intrinsic.z.dtype, model.intrinsic.z.shape) == (torch.float32, (DIM,))


@projections
@families
def test_the_gradient_of_z_is_R_transposed_times_that_of_theta(family: str, projection: str) -> None:  # noqa: N802
    """R column by column, and the gradient of every weight of a plain copy."""
    model = attached(family, projection)
    R = explicit(model)
    plain = FAMILIES[family]()
    batch = example_batch(plain)
    plain(**batch).loss.backward()
    parameters = dict(plain.named_parameters())
    gradients = (parameters[name].grad for name in backbone(model))
    g = torch.cat(
        [
            torch.zeros(w.numel()) if grad is None else grad.flatten()
            for w, grad in zip(backbone(model).values(), gradients, strict=True)
        ]
    )
    model(**batch).loss.backward()
    assert model.intrinsic.z.grad.abs().max() > 1e-4
    torch.testing.assert_close(model.intrinsic.z.grad, R.T @ g, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("family", "draws"), [("bert", 20), ("t5", 5)])
def test_the_columns_of_R_have_length_one_and_it_keeps_lengths(family: str, draws: int) -> None:  # noqa: N802
    """`sparse` exactly; `fastfood` but for the blocks that a tensor cuts, so over some draws within a few percent."""
    R = explicit(attached(family, "sparse")).double()
    torch.testing.assert_close(R.T @ R, torch.eye(DIM, dtype=torch.float64), rtol=0, atol=1e-4)
    z = torch.randn(DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    ratios = []
    for seed in range(draws):
        R = explicit(attached(family, "fastfood", seed=seed)).double()
        torch.testing.assert_close(R.norm(dim=0), torch.ones(DIM, dtype=torch.float64), rtol=0, atol=0.03)
        ratios.append(((R @ z).norm() / z.norm()).item() ** 2)
    assert sum(ratios) / draws == pytest.approx(1.0, abs=0.02 * (20 / draws) ** 0.5)


@projections
def test_each_tensors_share_of_the_move_is_its_share_of_the_weights(projection: str) -> None:
    model = attached("bert", projection)
    start = {name: weight.detach().clone() for name, weight in backbone(model).items()}
    put(model, 100 * torch.randn(DIM, generator=torch.Generator().manual_seed(1)))
    total = sum(weight.numel() for weight in start.values())
    length = model.intrinsic.z.norm().item()
    for name, weight in backbone(model).items():
        if weight.numel() >= 1000:
            share = (weight - start[name]).norm().item() / length
            assert share == pytest.approx(math.sqrt(weight.numel() / total), rel=0.15), name


@projections
def test_a_seed_gives_the_same_R_whatever_the_global_generator_says(projection: str) -> None:  # noqa: N802
    first = explicit(attached("bert", projection))
    torch.manual_seed(123)
    assert torch.equal(explicit(attached("bert", projection)), first)
    assert not torch.equal(explicit(attached("bert", projection, seed=1)), first)


def test_as_many_dimensions_as_weights_and_no_more() -> None:
    total = sum(weight.numel() for weight in backbone(frozen("bert")).values())
    with pytest.raises(UserError, match=rf"^intrinsic\.dim: got {total + 1}, more than the {total} weights"):
        attached("bert", dim=total + 1)
    shake(attached("bert", "sparse", dim=total))


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch gives it no types
    """The number of entries of the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for value in found if isinstance(found, tuple | list) else [found]:
            if isinstance(value, Tensor):
                self.entries = max(self.entries, value.numel())
        return found


@projections
def test_nothing_of_the_size_of_R_is_ever_made(projection: str) -> None:  # noqa: N802
    """Drawing, a pass and its gradient make no tensor that is much larger than the largest weight; R has 64 times N."""
    model = frozen("bert")
    dim, batch = 64, example_batch(model)
    with Largest() as seen:
        intrinsic.attach(model, head=head_of(model), dim=dim, projection=projection, seed=0)  # type: ignore[arg-type]
        model(**batch).loss.backward()
    largest = max(weight.numel() for weight in backbone(model).values())
    assert largest <= seen.entries < largest + 2 * dim


@projections
@families
def test_merging_leaves_the_plain_model_and_its_logits(family: str, projection: str, tmp_path: Path) -> None:
    model = attached(family, projection)
    shake(model)
    put(model, 20 * model.intrinsic.z.detach())
    before = logits(model)
    assert (before - logits(FAMILIES[family]())).abs().max() > 1e-2
    intrinsic.merge(model)
    assert torch.equal(logits(model), before)
    plain = FAMILIES[family]()
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]
    save_model(model, tmp_path / "model")
    torch.testing.assert_close(logits(load_model(tmp_path / "model", type(model))), before, rtol=0, atol=1e-5)


def test_a_tied_weight_moves_once() -> None:
    model = attached("t5")
    put(model, torch.ones(DIM))
    table = model.transformer.shared.weight
    assert torch.equal(model.transformer.encoder.embed_tokens.weight, table)
    expected = table.detach().clone()
    intrinsic.merge(model)
    assert model.transformer.encoder.embed_tokens.weight is model.transformer.shared.weight
    assert torch.equal(model.transformer.shared.weight, expected)


@projections
def test_a_bf16_backbone_is_moved_in_fp32_and_rounded_once(projection: str) -> None:
    model = frozen("bert")
    model.bert.to(torch.bfloat16)
    model.classifier.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
    start = model.bert.embeddings.word_embeddings.weight.detach().clone()
    intrinsic.attach(model, head=head_of(model), dim=DIM, projection=projection, seed=0)  # type: ignore[arg-type]
    put(model, torch.ones(DIM))
    exact = attached("bert", projection)
    zero = backbone(exact)["bert.embeddings.word_embeddings.weight"].detach().clone()
    put(exact, torch.ones(DIM))
    moved = backbone(exact)["bert.embeddings.word_embeddings.weight"].detach()
    found = model.bert.embeddings.word_embeddings.weight
    assert found.dtype == torch.bfloat16
    off = (found.detach().float() - (start.float() + (moved - zero))).abs()
    assert (off <= 2**-8 * moved.abs() + 1e-4).all()
    model(**example_batch(model)).loss.backward()
    assert model.intrinsic.z.grad.dtype == torch.float32 and model.intrinsic.z.grad.any()


@projections
def test_two_threads_give_the_gradient_of_one_and_repeat_to_the_bit(projection: str) -> None:
    model = attached("bert", projection)
    put(model, torch.randn(DIM, generator=torch.Generator().manual_seed(1)))
    parameters = [p for p in model.parameters() if p.requires_grad]
    together = threading.Barrier(2, timeout=60)  # so that both are in the model at once

    def wait(*_: Any) -> None:
        together.wait()

    def gradients(workers: int) -> list[Tensor]:
        hook = model.register_forward_pre_hook(wait) if workers == 2 else None
        with Workers(workers) as at_work:
            backward(
                model,
                example_batch(model),
                loss_of=cross_entropy,
                scaler=torch.amp.GradScaler("cpu", enabled=False),
                parameters=parameters,
                workers=at_work,
                parts=workers,
            )
        found = [p.grad.clone() for p in parameters]
        model.zero_grad()
        if hook is not None:
            hook.remove()
        return found

    alone, first, second = gradients(1), gradients(2), gradients(2)
    for one, two, again in zip(alone, first, second, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-5)
        assert torch.equal(two, again)


def test_a_tensor_of_several_parts_is_their_rows_in_order() -> None:
    model: Any = nn.ModuleDict({"map": nn.Linear(700, 400)})
    assert model["map"].weight.numel() > 2 * AT_ONCE
    start = copy.deepcopy(model)
    intrinsic.attach(model, head=(), dim=30, projection="fastfood", seed=0)
    put(model, torch.randn(30))
    moved = (model["map"].weight - start["map"].weight).flatten()
    (chain,) = model["map"].parametrizations.weight
    for part, piece in zip(chain.parts, moved.split(AT_ONCE), strict=True):
        torch.testing.assert_close(piece, part.times(model.intrinsic.z), rtol=0, atol=1e-6)


@projections
def test_a_step_computes_of_a_table_the_rows_that_it_reads(projection: str) -> None:
    """Parts have several tiles or none, also cut at their ends; repeated tokens and padding are computed once."""
    table: Any = nn.ModuleDict({"rows": nn.Embedding(20_000, 30, padding_idx=7)})
    intrinsic.attach(table, head=(), dim=DIM, projection=projection, seed=0)  # type: ignore[arg-type]
    put(table, torch.randn(DIM))
    tokens = torch.tensor([[7, 0, 9_999, 1], [19_999, AT_ONCE // 30, 7, 1]])
    g = torch.randn(2, 4, 30)
    with Largest() as seen:
        found = table["rows"](tokens)
        found.backward(g)
    assert seen.entries < 20_000
    z = table.intrinsic.z.grad.clone()
    table.intrinsic.z.grad = None
    whole = table["rows"].weight
    torch.testing.assert_close(found, whole[tokens], rtol=0, atol=1e-6)
    nn.functional.embedding(tokens, whole, padding_idx=7).backward(g)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(table.intrinsic.z.grad, z, rtol=1e-4, atol=1e-6)


def test_a_copy_has_a_z_of_its_own() -> None:
    model = attached("bert")
    other = copy.deepcopy(model)
    put(other, torch.ones(DIM))
    assert not torch.equal(logits(other), logits(model))
    assert torch.equal(logits(model), logits(FAMILIES["bert"]()))


def test_z_has_lr_and_decay_towards_the_backbone() -> None:
    model = attached("bert")
    settings: dict[str, Any] = {"lr": 1e-2, "ratio": 1.0, "head_lr": 1e-3, "embedding_lr": 1e-6, "weight_decay": 0.1}
    found = {g["name"]: g for g in param_groups(model, head=["classifier"], **settings)}
    assert (found["weight"]["names"], found["weight"]["lr"]) == (["intrinsic.z"], 1e-2)
    assert found["weight"]["weight_decay"] == 0.1


@projections
def test_a_row_has_the_same_logits_whatever_its_company(projection: str) -> None:
    model = attached("bert", projection)
    shake(model)
    batch = {name: value for name, value in example_batch(model).items() if name != "labels"}
    with torch.no_grad():
        both = model(**batch).logits
        alone = model(**{name: value[1:, :7] for name, value in batch.items()}).logits
    torch.testing.assert_close(alone, both[1:], rtol=0, atol=1e-5)
