"""LoRA+ as parameter groups: their contents, and equality with PEFT's optimizer."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from loralab.config.optimizer import OPTIMIZERS
from loralab.errors import UserError
from loralab.methods.formats.peft_lora import save_peft
from loralab.runs.plan import plan
from loralab.runs.run import run
from loralab.training.optim import adamw, group_table, optimizer, param_groups, param_roles, schedule
from tests.adapted import adapt, frozen, head_of, shake
from tests.families import FAMILIES, VOCABULARY
from tests.small_runs import config, outcome

STEPS = 20
ADAM: dict[str, Any] = {"betas": (0.9, 0.99), "eps": 1e-8}


def groups(model: Any, **settings: Any) -> list[dict[str, Any]]:
    given = {"lr": 1e-3, "ratio": 16.0, "head_lr": None, "embedding_lr": 1e-6, "weight_decay": 0.0, "layout": "roles"}
    return param_groups(model, head=head_of(model), **{**given, **settings})


def train(model: Any, optimizer: torch.optim.Optimizer, steps: int = STEPS, fresh: bool = True) -> list[float]:
    """The losses of `steps` updates without dropout, on fixed random batches, or on one (`fresh=False`)."""
    generator = torch.Generator().manual_seed(7)
    losses = []
    model.eval()
    for _ in range(steps):
        if not fresh:
            generator.manual_seed(7)
        ids = torch.randint(3, VOCABULARY, (8, 12), generator=generator)
        labels = ids[:, 0] % 3
        loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def trained(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def in_peft(name: str, heads: tuple[str, ...]) -> str:
    """PEFT's name of a loralab parameter."""
    prefix = "base_model.model."
    for head in heads:
        if name.startswith(f"{head}."):
            return f"{prefix}{head}.modules_to_save.default{name.removeprefix(head)}"
    owner, _, leaf = name.rpartition(".blocks.whole.")
    if owner.endswith("embeddings"):
        return f"{prefix}{owner}.lora_embedding_{leaf}.default"
    if owner:
        return f"{prefix}{owner}.lora_{leaf}.default.weight"
    return prefix + name.replace(".base.bias_update.b", ".base_layer.bias").replace(".bias_update.b", ".bias")


def peft_twin(model: Any, family: str, directory: Path) -> Any:
    """The same model with the same adapter in PEFT, still trainable."""
    from peft import PeftModel

    save_peft(model, directory, head=head_of(model), base_model="x")
    return PeftModel.from_pretrained(FAMILIES[family](), str(directory), is_trainable=True)


@pytest.mark.parametrize("layout", ["roles", "reference"])
def test_ratio_one_is_lora_bit_for_bit(layout: str) -> None:
    """LoRA: every trainable parameter is in one plain group of stock AdamW."""
    plus, lora = adapt("bert", targets=["all"]), adapt("bert", targets=["all"])
    start = trained(plus)
    train(plus, adamw(groups(plus, ratio=1.0, lr=3e-3, layout=layout), **ADAM))
    params = [p for p in lora.parameters() if p.requires_grad]
    train(lora, torch.optim.AdamW(params, lr=3e-3, weight_decay=0.0, fused=True, **ADAM))
    for name, value in trained(lora).items():
        assert (trained(plus)[name] == value).all(), name
        assert not torch.equal(value, start[name]), name


def test_another_ratio_is_not_lora() -> None:
    models = [adapt("bert"), adapt("bert")]
    for model, ratio in zip(models, (1.0, 1.01), strict=True):
        train(model, adamw(groups(model, ratio=ratio), **ADAM))
    first, second = map(trained, models)
    assert not any(torch.equal(first[name], second[name]) for name in first if name.endswith(".B"))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_first_step_of_b_is_ratio_times_as_large_and_of_nothing_else(name: str) -> None:
    moves = []
    for ratio in (1.0, 4.0):
        model = adapt("bert")
        start = trained(model)
        train(model, optimizer(name, groups(model, ratio=ratio), **ADAM), steps=1)
        moves.append({key: value - start[key] for key, value in trained(model).items()})
    for key, move in moves[0].items():
        torch.testing.assert_close(moves[1][key], (4 if key.endswith(".B") else 1) * move, rtol=1e-4, atol=1e-7)


def test_adafactor_moves_b_from_zero_by_its_rate() -> None:
    model = adapt("bert")
    train(model, optimizer("adafactor", groups(model, ratio=4.0), **ADAM), steps=1)
    for name, value in trained(model).items():
        if name.endswith(".B"):
            assert 0.3 * 4e-3 < value.square().mean().sqrt() <= 1.001 * 4e-3


def test_a_missing_package_is_one_line_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^optim\.name=lion needs lion-pytorch; run: pip install 'loralab\[lion\]'$"):
        optimizer("lion", [], **ADAM)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_on_to_the_same_bytes(name: str, tmp_path: Path) -> None:
    few = ("train.steps=4", "train.eval_every=4", "task.train_rows=32", "task.eval_rows=16", "optim.lr=0.01")
    whole = run(config(tmp_path / "whole", f"optim.name={name}", *few))
    run(config(tmp_path / "parts", f"optim.name={name}", *few, "train.pause_at=2"))
    run(config(tmp_path / "parts", f"optim.name={name}", *few))
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")
    assert (plan(config(tmp_path, *few)).directory.hash == whole["run_id"]) == (name == "adamw")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT and transformers
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("family", "target"), [("bert", "query"), ("gpt2", "c_attn")])
def test_reference_groups_train_as_pefts_loraplus_optimizer(
    family: str, target: str, weight_decay: float, tmp_path: Path
) -> None:
    from peft.optimizers import create_loraplus_optimizer

    ours = adapt(family, targets=[target])
    theirs = peft_twin(ours, family, tmp_path)
    start = trained(ours)
    settings = {"lr": 2e-4, "weight_decay": weight_decay}
    losses = train(ours, adamw(groups(ours, layout="reference", **settings), **ADAM))
    optimizer = create_loraplus_optimizer(
        theirs, torch.optim.AdamW, lr=2e-4, loraplus_lr_ratio=16.0, loraplus_weight_decay=weight_decay, **ADAM
    )
    assert train(theirs, optimizer) == pytest.approx(losses, abs=1e-5)
    oracle = dict(theirs.named_parameters())
    for name, value in trained(ours).items():
        torch.testing.assert_close(value, oracle[in_peft(name, head_of(ours))], rtol=0, atol=1e-6, msg=name)
        assert (value - start[name]).abs().max() > 1e-3, f"{name} hardly moved"


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("family", ["bert", "deberta_v2"])
def test_reference_groups_hold_what_pefts_groups_hold(family: str, tmp_path: Path) -> None:
    """With biases of maps and norms, and an adapted embedding, which no test above trains."""
    from peft.optimizers import create_loraplus_optimizer

    ours = adapt(family, targets=["query*", "dense", "word_embeddings"], bias="all")
    theirs = peft_twin(ours, family, tmp_path)
    optimizer = create_loraplus_optimizer(
        theirs, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16.0, loraplus_weight_decay=0.1
    )
    names = {id(p): name for name, p in theirs.named_parameters()}

    def content(found: Any, name_of: Any) -> set[tuple[float, float, frozenset[str]]]:
        return {(g["lr"], g["weight_decay"], frozenset(map(name_of, g["params"]))) for g in found}

    mine = {id(p): in_peft(name, head_of(ours)) for name, p in ours.named_parameters()}
    expected = content(optimizer.param_groups, lambda p: names[id(p)])
    assert content(groups(ours, layout="reference", weight_decay=0.1), lambda p: mine[id(p)]) == expected
    assert len(expected) == 4


@pytest.mark.parametrize("layout", ["roles", "reference"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_groups_partition_the_trainable_parameters(family: str, layout: str) -> None:
    model = adapt(family, targets=["all"], bias="all")
    found = [id(p) for group in groups(model, layout=layout) for p in group["params"]]
    assert len(found) == len(set(found))
    assert set(found) == {id(p) for p in model.parameters() if p.requires_grad}


def test_a_trainable_parameter_without_a_role_is_refused() -> None:
    model = adapt("bert")
    model.get_parameter("bert.embeddings.LayerNorm.weight").requires_grad_(True)
    with pytest.raises(AssertionError, match=r"bert.embeddings.LayerNorm.weight is trainable, but has no role"):
        groups(model)


def test_roles_come_from_the_modules() -> None:
    model = adapt("bert", targets=["query", "word_embeddings"], bias="all")
    roles = param_roles(model, head_of(model))
    layer = "bert.encoder.layer.0"
    assert roles[f"{layer}.attention.self.query.blocks.whole.A"] == "A"
    assert roles[f"{layer}.attention.self.query.blocks.whole.B"] == "B"
    assert roles[f"{layer}.attention.self.query.base.bias_update.b"] == "bias"
    assert roles[f"{layer}.output.LayerNorm.bias_update.b"] == "norm"
    assert {roles[f"bert.embeddings.word_embeddings.blocks.whole.{f}"] for f in "AB"} == {"embedding"}
    assert roles["classifier.weight"] == roles["classifier.bias"] == "head"


def test_rates_and_decay_by_role() -> None:
    model = adapt("bert", targets=["query", "word_embeddings"], bias="all")
    table = group_table(groups(model, head_lr=5e-3, weight_decay=0.1))
    assert {row["name"]: (row["lr"], row["weight_decay"]) for row in table} == {
        "A": (1e-3, 0.1),
        "B": (16e-3, 0.1),
        "embedding": (1e-6, 0.1),
        "bias": (16e-3, 0.0),
        "norm": (16e-3, 0.0),
        "head": (5e-3, 0.1),
        "head.bias": (5e-3, 0.0),
    }
    assert sum(row["parameters"] for row in table) == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_a_head_without_a_rate_of_its_own_gets_lr() -> None:
    assert {g["lr"] for g in groups(adapt("bert")) if g["name"].startswith("head")} == {1e-3}


def test_reference_gives_the_heads_matrix_lr_and_its_bias_lr_B() -> None:  # noqa: N802
    found = {g["name"]: g for g in groups(frozen("bert"), layout="reference", weight_decay=0.1)}
    assert (found["groupA"]["names"], found["groupA"]["lr"]) == (["classifier.weight"], 1e-3)
    no_decay = found["groupB_no_decay"]
    assert (no_decay["names"], no_decay["lr"], no_decay["weight_decay"]) == (["classifier.bias"], 16e-3, 0.0)


@pytest.mark.parametrize("layout", ["roles", "reference"])
def test_weight_decay_shrinks_matrices_and_leaves_vectors(layout: str) -> None:
    """With zero gradients AdamW only decays: p <- (1 - lr * weight_decay) p."""
    model = adapt("bert", bias="all")
    shake(model)
    before = trained(model)
    found = groups(model, layout=layout, weight_decay=0.1)
    optimizer = adamw(found, **ADAM)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    rates = {name: group["lr"] for group in found for name in group["names"]}
    for name, value in trained(model).items():
        factor = 1 - rates[name] * 0.1 if value.ndim == 2 else 1.0
        torch.testing.assert_close(value, before[name] * factor, msg=name)
    assert {value.ndim for value in before.values()} == {1, 2}


@pytest.mark.parametrize("ratio", [1.0, 16.0])
def test_a_bf16_backbone_trains_fp32_factors(ratio: float) -> None:
    model = adapt("bert")
    for name, module in model.bert.named_modules():
        if ".blocks" not in name:
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(torch.bfloat16)
    model.classifier.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
    optimizer = adamw(groups(model, lr=1e-2, ratio=ratio, head_lr=1e-2), **ADAM)
    losses = train(model, optimizer, steps=40, fresh=False)
    assert losses[-1] < 0.5 * losses[0]
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert {s["exp_avg"].dtype for s in optimizer.state.values()} == {torch.float32}


def test_adamw_keeps_the_peak_rate_of_each_group() -> None:
    optimizer = adamw(groups(adapt("bert")), **ADAM)
    assert [group["peak_lr"] for group in optimizer.param_groups] == [g["lr"] for g in optimizer.param_groups]


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.06, 7])
def test_the_schedule_is_transformers_own(kind: Any, warmup: float) -> None:
    from transformers import get_scheduler

    steps = 50
    rise = math.ceil(warmup * steps) if warmup < 1 else int(warmup)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    name = "constant_with_warmup" if kind == "constant" else kind
    oracle = get_scheduler(name, optimizer, num_warmup_steps=rise, num_training_steps=steps)
    factor = schedule(kind, warmup=warmup, steps=steps)
    for t in range(steps):
        assert factor(t) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12), t
        optimizer.step()
        oracle.step()


# Adam ignores the scale of a gradient, so training sees the factor that is zero at the start only through s times it:
# with init A (s, lr_A, lr_B) and (1, lr_A, s lr_B) are one run, with init B (s, lr_A, lr_B) and (1, s lr_A, lr_B).
SAME = {  # init: (alpha, lr_A, λ) twice, at r = 8
    "A": ((32, 5e-3, 1), (8, 5e-3, 4)),
    "B": ((32, 1.25e-3, 4), (8, 5e-3, 1)),
}


def apart(init: str, one: tuple[float, ...], other: tuple[float, ...], *, eps: float = 1e-8, decay: float = 0) -> float:
    """The largest relative difference between the losses of two runs of 50 steps, whose heads train alike."""
    losses = []
    for alpha, lr, ratio in (one, other):
        model = adapt("bert", rank=8, alpha=alpha, init=init)
        found = groups(model, lr=lr, ratio=ratio, head_lr=4e-3, weight_decay=decay)
        losses.append(train(model, adamw(found, betas=(0.9, 0.999), eps=eps), steps=50))
    return float(max(abs(a - b) / a for a, b in zip(*losses, strict=True)))


@pytest.mark.parametrize("init", SAME)
def test_alpha_is_the_ratio(init: str) -> None:
    """With the usual eps to 1e-5; with one that is beneath every gradient, bit for bit, since 4 is a power of 2."""
    assert apart(init, *SAME[init]) < 1e-5
    assert apart(init, *SAME[init], eps=1e-30) == 0


@pytest.mark.parametrize("init", SAME)
def test_alpha_is_the_ratio_no_more_with_weight_decay_or_a_large_eps(init: str) -> None:
    assert apart(init, *SAME[init], decay=0.1) > 1e-4
    assert apart(init, *SAME[init], eps=1e-4) > 1e-4


def test_the_other_inits_exchange_is_another_run() -> None:
    assert apart("A", *SAME["B"]) > 1e-2
