"""Loading: what is frozen, what is new, what is refused; on every family, from real files."""

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from loralab.backbones.families import linear_maps
from loralab.backbones.load import Backbone
from loralab.backbones.source import Source
from loralab.errors import UserError
from tests.backbones.checkpoints import take
from tests.families import FAMILIES, example_batch

HEADS = {
    "bert": ("classifier",),
    "roberta": ("classifier",),
    "distilbert": ("pre_classifier", "classifier"),
    "electra": ("classifier",),
    "deberta_v2": ("pooler.dense", "classifier"),
    "mpnet": ("classifier",),
    "t5": ("classification_head",),
} | dict.fromkeys(("gpt2", "gpt_neox", "opt", "llama", "qwen2"), ("score",))

WITHOUT_SDPA = ("deberta_v2", "mpnet")

families = pytest.mark.parametrize("family", FAMILIES)


def head_bytes(backbone: Backbone) -> dict[str, bytes]:
    return {
        f"{path}.{name}": tensor.detach().cpu().numpy().tobytes()
        for path in backbone.head
        for name, tensor in backbone.model.get_submodule(path).named_parameters()
    }


@families
def test_backbone_is_the_checkpoints_and_frozen_and_the_head_is_all_the_rest(
    family: str, checkpoint: Callable[..., Source]
) -> None:
    backbone = take(checkpoint(family))
    assert backbone.head == HEADS[family]
    original = dict(FAMILIES[family]().named_parameters())
    for name, parameter in backbone.model.named_parameters():
        in_head = any(name.startswith(f"{path}.") for path in backbone.head)
        assert parameter.requires_grad == in_head, name
        assert parameter.dtype == torch.float32
        assert in_head or torch.equal(parameter, original[name]), name
        assert parameter.isfinite().all()
    assert backbone.maps == linear_maps(backbone.model)
    assert not backbone.model.training


@families
def test_head_bytes_depend_on_the_seed_alone(family: str, checkpoint: Callable[..., Source]) -> None:
    source = checkpoint(family)
    torch.manual_seed(1)
    first = head_bytes(take(source, seed=5))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again = head_bytes(take(source, seed=5, dtype=torch.bfloat16))
    assert torch.equal(before, torch.get_rng_state()), "the caller's generator was touched"
    assert first == again
    other = head_bytes(take(source, seed=6))
    weights = [name for name in first if name.endswith("weight")]
    assert weights
    assert all(first[name] != other[name] for name in weights)


@families
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_backbone_with_fp32_head_trains_its_head(
    family: str, dtype: torch.dtype, checkpoint: Callable[..., Source]
) -> None:
    backbone = take(checkpoint(family), dtype=dtype)
    for name, parameter in backbone.model.named_parameters():
        overflows = family == "t5" and dtype == torch.float16 and ".wo." in name  # transformers keeps it in fp32
        assert parameter.dtype == (torch.float32 if parameter.requires_grad or overflows else dtype), name
    output = backbone.model(**example_batch(backbone.model))
    assert output.logits.dtype == torch.float32
    output.loss.backward()
    for path in backbone.head:
        for parameter in backbone.model.get_submodule(path).parameters():
            assert parameter.grad is not None
            assert parameter.grad.isfinite().all()
    exact = take(checkpoint(family)).model(**example_batch(backbone.model)).logits
    torch.testing.assert_close(output.logits, exact, rtol=0.1, atol=0.05)


@families
def test_padding_on_the_right_changes_nothing(family: str, checkpoint: Callable[..., Source]) -> None:
    backbone = take(checkpoint(family))
    texts = ["w7 w8 w9 w10 w11 w12", "w20 w21 w22"]
    both = backbone.tokenizer(texts, padding=True, return_tensors="pt")
    assert both["input_ids"][1, -1] == backbone.model.config.pad_token_id
    alone = backbone.tokenizer(texts[1:], return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(backbone.model(**both).logits[1:], backbone.model(**alone).logits)


@families
def test_dropout_zero_is_deterministic_and_dropout_reaches_every_layer(
    family: str, checkpoint: Callable[..., Source]
) -> None:
    model = take(checkpoint(family)).model.train()
    batch = example_batch(model)
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, model(**batch).logits)
        model = take(checkpoint(family), dropout=0.25).model.train()
        assert not torch.equal(model(**batch).logits, model(**batch).logits)
    rates = {module.p for module in model.modules() if isinstance(module, nn.Dropout)}
    assert rates <= {0.25}


@families
def test_attention_auto_on_a_cpu_is_eager_and_sdpa_gives_the_same_where_it_exists(
    family: str, checkpoint: Callable[..., Source]
) -> None:
    eager = take(checkpoint(family))
    assert eager.model.config._attn_implementation in ("eager", "eager_in_groups")  # attention.py
    batch = example_batch(eager.model)
    if family in WITHOUT_SDPA:
        with pytest.raises(UserError, match=r"^model.attention: 'sdpa' .*allowed: eager"):
            take(checkpoint(family), attention="sdpa")
        return
    sdpa = take(checkpoint(family), attention="sdpa")
    assert sdpa.model.config._attn_implementation == "sdpa"
    torch.testing.assert_close(sdpa.model(**batch).logits, eager.model(**batch).logits)


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta_v2", "gpt2"])
def test_a_classifiers_own_head_is_kept_and_still_trained(family: str, checkpoint: Callable[..., Source]) -> None:
    backbone = take(checkpoint(family, classifier=True))
    assert backbone.head == HEADS[family]
    for name, tensor in FAMILIES[family]().named_parameters():
        assert torch.equal(backbone.model.get_parameter(name), tensor), name
    assert all(p.requires_grad for path in backbone.head for p in backbone.model.get_submodule(path).parameters())


def test_another_number_of_classes_renews_the_output_layer_alone(checkpoint: Callable[..., Source]) -> None:
    backbone = take(checkpoint("roberta", classifier=True), labels=5, seed=4)
    old = FAMILIES["roberta"]()
    assert torch.equal(backbone.model.get_parameter("classifier.dense.weight"), old.classifier.dense.weight)
    output = backbone.model.get_parameter("classifier.out_proj.weight")
    assert output.shape == (5, 32)
    assert output.std().item() == pytest.approx(0.02, rel=0.3)  # drawn anew with BERT's initializer_range


def test_class_names_and_regression_reach_the_config(checkpoint: Callable[..., Source]) -> None:
    named = take(checkpoint("bert"), class_names=("neg", "so-so", "pos")).model.config
    assert named.id2label == {0: "neg", 1: "so-so", 2: "pos"}
    assert named.label2id["pos"] == 2
    regression = take(checkpoint("bert"), labels=1, regression=True).model
    assert regression.config.problem_type == "regression"
    assert regression.config.num_labels == 1


def test_loading_says_nothing_and_asks_no_network(
    checkpoint: Callable[..., Source], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for family in ("roberta", "deberta_v2", "llama", "t5"):
        take(checkpoint(family))
    assert capfd.readouterr() == ("", "")


def test_a_fresh_process_loads_in_silence_too(checkpoint: Callable[..., Source]) -> None:
    source = checkpoint("roberta", classifier=True)
    code = f"""
import torch
from pathlib import Path
from loralab.backbones.load import load
from loralab.backbones.source import locate
source = locate("x", package=None, hub=None, revision=None, path={str(source.directory)!r}, cache=Path("unused"))
load(source, labels=2, regression=False, dropout=0.1, attention="auto", dtype=torch.float32, device="cpu", seed=0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(str(source.directory)))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@families
def test_on_a_gpu_auto_is_sdpa_where_it_exists_and_logits_agree(family: str, checkpoint: Callable[..., Source]) -> None:
    here, there = take(checkpoint(family)), take(checkpoint(family), device="cuda")
    model: PreTrainedModel = there.model
    assert model.config._attn_implementation == ("eager" if family in WITHOUT_SDPA else "sdpa")
    assert head_bytes(here) == head_bytes(there)
    batch = example_batch(here.model)
    expected = here.model(**batch).logits
    got = model(**{name: tensor.cuda() for name, tensor in batch.items()}).logits.cpu()
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)
