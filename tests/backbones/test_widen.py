"""A backbone with copied units computes the same function, and LoRA follows the narrow one by the theorem's rates."""

import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from loralab.backbones import widen
from loralab.backbones.families import FAMILIES as TABLE
from loralab.backbones.load import Backbone, load_generator
from loralab.backbones.source import Source, locate
from loralab.errors import UserError
from loralab.methods import lora
from loralab.training import optim
from tests.backbones.checkpoints import find, take
from tests.families import ALL, VOCABULARY, example_batch, save_checkpoint

KINDS = ("bert", "roberta", "gpt2", "llama")  # llama: two heads share their key and value
MORE = ("xlm_roberta", "mistral", "qwen2", "qwen3")
kinds = pytest.mark.parametrize("family", KINDS)


def logits(backbone: Backbone) -> Tensor:
    """Of two texts, one of them padded; 0 at padding."""
    model: Any = backbone.model
    batch = example_batch(model)
    del batch["labels"]
    with torch.no_grad():
        found: Tensor = model(**batch).logits
    return found * batch["attention_mask"][:, :, None] if found.ndim == 3 else found


def generator(source: Source, dtype: torch.dtype = torch.float32) -> Backbone:
    return load_generator(source, dropout=0.0, attention="eager", dtype=dtype, device="cpu")


def tiny(name: str) -> Source:
    return locate(name, package=None, hub=None, revision=None, path=None, cache=None)


@pytest.mark.parametrize("noise", [0.0, 1.0])
@kinds
def test_a_wide_classifier_has_the_narrow_ones_logits(
    family: str, noise: float, checkpoint: Callable[..., Source]
) -> None:
    """With a new head where the copies are exact, and with the checkpoint's head also with noise."""
    source = checkpoint(family, classifier=noise > 0)
    narrow, wide = take(source), take(source.widened(3, noise))
    assert wide.model.config.hidden_size == 96 == wide.source.width
    torch.testing.assert_close(logits(wide), logits(narrow), rtol=0, atol=1e-5)
    assert wide.head == narrow.head and wide.notes == narrow.notes
    for name, parameter in wide.model.named_parameters():
        assert parameter.requires_grad == any(name.startswith(f"{path}.") for path in wide.head), name
        assert parameter.numel() > 0 and parameter.dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("family", MORE)
def test_so_have_the_other_families_that_widen(family: str, tmp_path: Path) -> None:
    source = find(save_checkpoint(ALL[family](), tmp_path / family), tmp_path)
    torch.testing.assert_close(logits(take(source.widened(2, 1.0))), logits(take(source)), rtol=0, atol=1e-5)


def test_the_table_widens_the_families_that_are_tested() -> None:
    assert {name for name, row in TABLE.items() if row.widens} == {name.replace("_", "-") for name in (*KINDS, *MORE)}


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_tied_output_embeddings_stay_tied_and_count_once(noise: float) -> None:
    source = tiny("tiny_decoder")
    narrow, wide = generator(source), generator(source.widened(2, noise))
    torch.testing.assert_close(logits(wide), logits(narrow), rtol=0, atol=1e-5)
    model: Any = wide.model
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_in_bf16_the_function_is_the_same_to_bf16s_rounding(checkpoint: Callable[..., Source]) -> None:
    source = checkpoint("llama", classifier=True)
    narrow, wide = (take(s, dtype=torch.bfloat16) for s in (source, source.widened(3, 1.0)))
    assert wide.model.dtype == torch.bfloat16
    apart = (logits(wide) - logits(narrow)).norm() / logits(narrow).norm()
    assert 0 < apart < 0.03


def test_noise_is_as_large_as_asked_sums_to_zero_over_the_copies_and_is_the_backbones(
    checkpoint: Callable[..., Source],
) -> None:
    k, source = 4, checkpoint("bert")
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    W = take(source).model.get_parameter(name)
    by_seed = [take(source.widened(k, 1.0), seed=seed).model.get_parameter(name) for seed in (0, 1)]
    assert torch.equal(*by_seed), "not by the run's seed"
    W_wide = by_seed[0]
    rows, columns = W.shape
    torch.testing.assert_close(W_wide.view(k * rows, k, columns).sum(1), W.repeat(k, 1), rtol=0, atol=1e-5)
    rms = float(W_wide.square().mean().sqrt() / W.square().mean().sqrt())
    assert rms == pytest.approx(1 / math.sqrt(k), rel=0.02)
    assert not torch.equal(W_wide[:rows], W_wide[rows : 2 * rows])
    exact = take(source.widened(k, 0.0)).model.get_parameter(name)
    torch.testing.assert_close(exact, W.repeat(k, k) / k, rtol=0, atol=0)
    twice = take(source.widened(k, 2.0)).model.get_parameter(name)
    torch.testing.assert_close(twice - exact, 2 * (W_wide - exact), rtol=0, atol=1e-6)


def test_with_noise_a_new_head_is_drawn_at_the_full_width_and_divided_by_the_root_of_k(
    checkpoint: Callable[..., Source],
) -> None:
    heads = [take(checkpoint("bert").widened(k, 1.0)).model.get_parameter("classifier.weight") for k in (1, 16)]
    narrow, wide = (float(head.detach().square().mean().sqrt()) for head in heads)
    assert wide == pytest.approx(narrow / 4, rel=0.25)
    assert not torch.equal(heads[1][:, :32], heads[1][:, 32:64])


def test_the_narrow_tensors_are_released(checkpoint: Callable[..., Source], monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []

    def move(model: Any, wide: Any, source: Source) -> None:
        moved(model, wide, source)
        left.append(sum(p.numel() for p in model.parameters()))

    moved = widen._move
    monkeypatch.setattr(widen, "_move", move)
    take(checkpoint("gpt2").widened(2, 0.0))
    assert left == [0]


def test_a_dropout_of_the_backbone_is_off_while_the_widths_are_compared(checkpoint: Callable[..., Source]) -> None:
    assert take(checkpoint("bert").widened(2, 0.0), dropout=0.5).model.config.hidden_dropout_prob == 0.5


def test_another_family_is_one_line_that_names_those_that_widen(checkpoint: Callable[..., Source]) -> None:
    with pytest.raises(UserError, match=r"^model.widen: got 2; [^\n]* is a 't5' model, and [^\n]*bert, [^\n]*llama"):
        checkpoint("t5").widened(2, 0.0)
    assert checkpoint("t5").widened(1, 0.0) == checkpoint("t5")


def test_a_width_that_the_memory_does_not_hold_is_one_line(
    checkpoint: Callable[..., Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sysconf", lambda _: 512)
    with pytest.raises(UserError, match=r"^model.widen: got 2; the weights would take [\d,]+ GB, and this machine has"):
        take(checkpoint("bert").widened(2, 0.0))


def test_outputs_that_change_are_one_line(checkpoint: Callable[..., Source], monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a variant of a family whose heads are laid out otherwise."""
    monkeypatch.setattr(widen, "linear_maps", lambda _: ())  # q, k and v of GPT-2 are then copied as one
    with pytest.raises(UserError, match=r"^model.widen: got 2; the outputs of [^\n]* change by [^\n]*backbone$"):
        take(checkpoint("gpt2").widened(2, 0.0))


def losses(
    source: Source,
    rates: tuple[float, float, float, float],
    *,
    init: Literal["A", "B"] = "A",
    generates: bool = False,
    eps: float = 1e-20,
    decay: float = 0.0,
    clip: float = math.inf,
) -> Tensor:
    """The losses of LoRA on all maps; rates: lr_A, lr_B, of the head's matrices, of its biases."""
    lr_A, lr_B, head_lr, head_bias_lr = rates
    backbone = generator(source) if generates else take(source, attention="eager")
    model: Any = backbone.model
    lora.attach(
        model, backbone.maps, head=backbone.head, targets=["all"], rank=2, alpha=2, scaling="alpha/r", init=init,
        init_dist="kaiming", dropout=0.0, bias="none", rank_pattern={}, seed=0, copies=source.copies,
    )  # fmt: skip
    groups = optim.param_groups(
        model, head=backbone.head, lr=lr_A, ratio=lr_B / lr_A, head_lr=head_lr, head_bias_lr=head_bias_lr,
        embedding_lr=0.0, weight_decay=decay,
    )  # fmt: skip
    optimizer = optim.adamw(groups, betas=(0.9, 0.999), eps=eps)
    rng = torch.Generator().manual_seed(0)
    found = []
    for _ in range(40):
        ids = torch.randint(3, VOCABULARY, (8, 8), generator=rng)
        out = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        logits, wanted = (out[:, :-1].flatten(0, 1), ids[:, 1:].flatten()) if generates else (out, ids[:, 0] % 3)
        loss = torch.nn.functional.cross_entropy(logits, wanted)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], clip)
        optimizer.step()
        found.append(loss.item())
    return torch.tensor(found, dtype=torch.float64)


NARROW = (1e-3, 4e-3, 2e-3, 2e-3)


def by_law(k: int) -> tuple[float, float, float, float]:
    """(lr_A / k, lr_B), and the head's rates: of its matrices / k, of its biases as they are."""
    lr_A, lr_B, head_lr, head_bias_lr = NARROW
    return lr_A / k, lr_B, head_lr / k, head_bias_lr


IN_GATE = (("bert", "A"), ("bert", "B"), ("llama", "A"), ("llama", "B"), ("gpt2", "A"), ("tiny_decoder", "B"))
pairs = [(family, init) for family in (*KINDS, "tiny_decoder") for init in ("A", "B")]


@pytest.mark.parametrize(
    ("family", "init"), [pytest.param(*pair, marks=() if pair in IN_GATE else pytest.mark.slow) for pair in pairs]
)
def test_at_lr_a_over_k_lora_follows_the_narrow_backbone_and_at_equal_rates_it_does_not(
    family: str, init: Literal["A", "B"], checkpoint: Callable[..., Source]
) -> None:
    """The same for both inits: whichever factor is zero, A moves by 1/k of its narrow move, and B by all of it."""
    generates = family == "tiny_decoder"
    source = tiny(family) if generates else checkpoint(family)
    narrow = losses(source, NARROW, init=init, generates=generates)
    wide = source.widened(2, 0.0)
    followed = losses(wide, by_law(2), init=init, generates=generates)
    assert (followed - narrow).abs().max() < 1e-5
    equal = losses(wide, NARROW, init=init, generates=generates)
    assert (equal - narrow).abs().max() > 1e-3


@pytest.mark.parametrize(
    "broken",
    [{"clip": 0.1}, *(pytest.param(other, marks=pytest.mark.slow) for other in ({"eps": 1e-3}, {"decay": 0.1}))],
    ids=str,
)
def test_a_large_eps_clipping_and_decay_break_it(broken: dict[str, Any], checkpoint: Callable[..., Source]) -> None:
    """Of the gradient, B's part is divided by k, and A's is not; the decay of A is lr_A times the setting."""
    source = checkpoint("llama")
    narrow, wide = losses(source, NARROW, **broken), losses(source.widened(2, 0.0), by_law(2), **broken)
    assert (narrow - wide).abs().max() > 1e-5


def test_exact_copies_refuse_targets_that_are_not_copied_as_one(checkpoint: Callable[..., Source]) -> None:
    for target in ("wte", "c_attn"):
        with pytest.raises(UserError, match=rf"^lora.targets: \S*{target} has inputs or outputs that are not copied"):
            adapt_one(checkpoint("gpt2").widened(2, 0.0), target)
        adapt_one(checkpoint("gpt2").widened(2, 1.0), target)


def adapt_one(source: Source, target: str, rank: int = 2) -> None:
    backbone = take(source)
    lora.attach(
        backbone.model, backbone.maps, head=backbone.head, targets=[target], rank=rank, alpha=2, scaling="alpha/r",
        init="A", init_dist="kaiming", dropout=0.0, bias="none", rank_pattern={}, seed=0, copies=source.copies,
    )  # fmt: skip


def test_the_full_rank_of_a_map_with_exact_copies_is_the_narrow_one(checkpoint: Callable[..., Source]) -> None:
    source = checkpoint("bert")
    with pytest.raises(UserError, match=r"^lora.rank: got 33, but the full rank of \S*query \(64 to 64\) is 32;"):
        adapt_one(source.widened(2, 0.0), "q", rank=33)
    adapt_one(source.widened(2, 1.0), "q", rank=33)


def test_a_source_of_one_copy_is_the_source_itself(checkpoint: Callable[..., Source]) -> None:
    source = checkpoint("bert")
    assert source.widened(1, 0.0) == source and source.copies == 1
    assert (source.widened(4, 0.0).copies, source.widened(4, 0.1).copies) == (4, 1)
    assert source.widened(4, 0.0) == replace(source, width=128, widen=4)
