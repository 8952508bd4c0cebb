"""Frozen maps in 4 or 8 bits: what is quantised, how far the weights move, and what runs and exports make of it."""

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from loralab.backbones.quantise import dequantise_maps, numbers_in_codes, quantise_maps
from loralab.compat.bitsandbytes import BITS
from loralab.compat.transformers import conv1d
from loralab.errors import UserError
from loralab.methods.lora import attach, lora_modules, merge
from loralab.runs.export import export
from loralab.runs.load import load_run
from loralab.runs.plan import plan
from loralab.runs.run import run
from tests.families import FAMILIES
from tests.runs.test_export import logits_of, stored
from tests.small_runs import config, outcome

pytest.importorskip("bitsandbytes", reason="needs the extra `quantize`")

# The root mean square of W - W' over that of W, for W normal: of nf4 in blocks of 64 .092 (QLoRA's levels, scales of 8
# bits), of int8 the step (the largest of 64, about 2.4 sigma, over 127) over sqrt(12).
NOISE = {"nf4": 0.095, "int8": 0.0060}


def quantised(model: Any, kind: str, *, dtype: torch.dtype = torch.float32, head: tuple[str, ...] = ()) -> Any:
    quantise_maps(model, kind, head=head, dtype=dtype, device=torch.device("cpu"), name="mine")
    return model


def of_maps(*maps: nn.Module) -> Any:
    """A model of these maps, with what a transformers model says of itself."""
    model: Any = nn.ModuleList(maps).requires_grad_(False)
    model.config = type("Config", (), {})()
    model.get_output_embeddings = lambda: None
    model._keep_in_fp32_modules = model._keep_in_fp32_modules_strict = None
    return model


@pytest.mark.parametrize("kind", NOISE)
@pytest.mark.parametrize("d_in", [64, 48], ids=["whole blocks a row", "blocks across rows"])
def test_weights_move_by_the_noise_of_the_code_and_no_more(kind: str, d_in: int) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(d_in, 160)
    nn.init.normal_(plain.weight, std=0.02)
    weight = plain.weight.detach().clone()
    quantised(of_maps(plain), kind)
    moved = (plain.weight - weight).norm() / weight.norm()
    assert 0.8 * NOISE[kind] < moved < 1.05 * NOISE[kind]


@pytest.mark.parametrize("kind", NOISE)
@pytest.mark.parametrize("make", [nn.Linear, conv1d()])
def test_outputs_and_gradients_are_those_of_a_plain_map_of_the_same_weight(kind: str, make: Any) -> None:
    torch.manual_seed(0)
    module = make(32, 48)
    quantised(of_maps(module), kind)
    x = torch.randn(3, 5, module.weight.shape[1 if make is nn.Linear else 0], requires_grad=True)
    found = module(x)
    (gradient,) = torch.autograd.grad(found.square().sum(), x)
    dequantise_maps(module)
    assert type(module) is make
    wanted = module(x)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(gradient, torch.autograd.grad(wanted.square().sum(), x)[0])


@pytest.mark.parametrize("kind", NOISE)
def test_the_frozen_maps_take_the_bits_of_their_code(kind: str) -> None:
    plain: Any = nn.Linear(512, 512, bias=False)
    quantised(of_maps(plain), kind)
    tensors = [plain.codes, plain.state.absmax]
    if kind == "nf4":
        tensors.append(plain.state.state2.absmax)
    bits = 8 * sum(tensor.nbytes for tensor in tensors) / 512**2
    assert math.isclose(bits, BITS[kind], rel_tol=1e-3)
    assert not list(plain.parameters()) and numbers_in_codes(plain) == 512**2


def test_nothing_keeps_the_weight_for_the_backward_pass() -> None:
    module = nn.Linear(64, 64)
    quantised(of_maps(module), "nf4")
    sizes: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        module(torch.randn(1, 64, requires_grad=True))
    assert sizes == []


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "t5"])
def test_linear_maps_alone_are_quantised_whatever_the_family(family: str) -> None:
    torch.manual_seed(0)
    model = FAMILIES[family]().requires_grad_(False)
    head = tuple(name for name in ("classifier", "score", "classification_head") if hasattr(model, name))
    quantised(model, "nf4", head=head, dtype=torch.bfloat16)
    codes = {name: module for name, module in model.named_modules() if hasattr(module, "codes")}
    assert codes and not any(name.startswith(head) for name in codes if head)
    assert all(isinstance(module, (nn.Linear, conv1d())) for module in codes.values())
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    left = [
        n for n, m in model.named_modules() if type(m) in (nn.Linear, conv1d()) and not n.startswith(head or ("-",))
    ]
    assert left == []


def test_a_merged_map_is_plain_numbers() -> None:
    torch.manual_seed(0)
    model = quantised(of_maps(nn.Linear(64, 64)), "int8")
    attach(
        model, (), head=(), targets=["all"], rank=4, alpha=4, scaling="alpha/r", init="A", init_dist="kaiming",
        dropout=0.0, bias="none", rank_pattern={}, seed=0,
    )  # fmt: skip
    (module,) = lora_modules(model).values()
    block = module.factors()["whole"]
    nn.init.normal_(block.B)
    x = torch.randn(2, 64)
    before, frozen = module(x), module.weight
    merge(model)
    assert numbers_in_codes(model) == 0
    torch.testing.assert_close(module.weight, frozen + block.delta())
    torch.testing.assert_close(module(x), before, atol=1e-5, rtol=1e-5)


FEW = ("train.steps=6", "train.eval_every=3", "task.train_rows=48", "task.eval_rows=16", "train.precision=fp32")


def test_losses_stay_near_those_of_fp32_by_the_noise_of_the_code(tmp_path: Path) -> None:
    """A loss moves by sqrt(2) times as much as its logits at most; n maps add their noises in quadrature."""
    losses = {}
    for kind in ("null", *NOISE):
        run(config(tmp_path / kind, f"model.quantize={kind}", "optim.lr=1e-3", *FEW))
        (lines,) = (tmp_path / kind).glob("runs/*/metrics.jsonl")
        read = [json.loads(line) for line in lines.read_text().splitlines()]
        losses[kind] = np.array([line["values"]["loss"] for line in read if line["split"] == "train"])
    (table,) = (tmp_path / "null").glob("runs/*/predictions.parquet")
    logits = max(float(np.linalg.norm(row)) for row in pd.read_parquet(table)["logits"])
    for kind, noise in NOISE.items():
        apart = np.abs(losses[kind] - losses["null"]).max()
        assert 0 < apart < math.sqrt(2) * noise * math.sqrt(12) * logits


@pytest.mark.parametrize(
    "options",
    [
        ("model.quantize=nf4", "train.precision=bf16"),
        pytest.param(
            ("model.quantize=int8", "method=dora", "model.gradient_checkpointing=true"), marks=pytest.mark.slow
        ),
        pytest.param(
            (
                "model.quantize=nf4",
                "model=tiny_decoder",
                "task=sql",
                "train.max_length=128",
                "generate.max_new_tokens=4",
            ),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["bf16", "dora", "decoder"],
)
def test_a_paused_run_goes_on_to_the_same_bytes(options: tuple[str, ...], tmp_path: Path) -> None:
    whole = run(config(tmp_path / "whole", *FEW, *options))
    run(config(tmp_path / "parts", *FEW, *options, "train.pause_at=3"))
    assert run(config(tmp_path / "parts", *FEW, *options))["run_id"] == whole["run_id"]
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


def test_a_run_loads_and_merges_to_the_logits_of_its_training(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    asked = config(tmp_path / "store", "model.quantize=nf4", "train.precision=fp32")
    record = run(asked)
    directory = plan(asked).directory
    plain = config(tmp_path / "store", "train.precision=fp32")
    assert directory.hash != plan(plain).directory.hash and record["identity"]["model"]["quantize"] == "nf4"
    model, tokenizer = load_run(directory.path)
    assert np.abs(logits_of(model, tokenizer) - stored(directory)).max() < 1e-5
    assert record["parameters"]["total"] == sum(p.numel() for p in model.parameters()) + numbers_in_codes(model)
    export(directory, tmp_path / "whole", merged=True, dtype="fp32")
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole").eval()
    assert np.abs(logits_of(merged, AutoTokenizer.from_pretrained(tmp_path / "whole")) - stored(directory)).max() < 1e-5
    assert "which nf4 stands for, as plain numbers" in (tmp_path / "whole" / "README.md").read_text()


def test_a_missing_package_is_one_line_that_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "bitsandbytes" else find(name))
    with pytest.raises(UserError, match=r"^model\.quantize=nf4 needs bitsandbytes; run: pip install 'loralab\[quanti"):
        run(config(tmp_path, "model.quantize=nf4"))


def test_maps_that_must_stay_in_fp32_are_refused_in_half_precision() -> None:
    model = of_maps(nn.Linear(64, 64))
    model._keep_in_fp32_modules = ["wo"]
    with pytest.raises(UserError, match=r"^model\.quantize: got nf4 in half precision, .* of mine in fp32 \(wo\); set"):
        quantised(model, "nf4", dtype=torch.float16)
    assert numbers_in_codes(quantised(model, "nf4", dtype=torch.bfloat16)) == 64**2


def test_a_model_of_other_sizes_is_refused() -> None:
    with pytest.raises(UserError, match=r"^model\.quantize: got int8; mine has no linear map that can be quantised"):
        quantised(of_maps(nn.Linear(3, 5)), "int8")
