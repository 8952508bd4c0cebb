"""The peak of a step that is predicted from sizes alone, against what torch's allocator counts in a real one."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from loralab.backbones.load import Backbone
from loralab.compat.bitsandbytes import BITS
from loralab.config.schema import Config
from loralab.runs.console import Console
from loralab.runs.memory import predicted
from loralab.runs.plan import plan
from loralab.runs.prepare import Prepared, prepare
from loralab.training.distributed import ALONE
from loralab.training.gradient import backward
from loralab.training.threads import Workers
from tests.small_runs import config

ROWS = 64
LONG = ("train.batch_size=16", "train.max_length=32", "task.train_rows=null", "task.eval_rows=null", "optim.lr=1e-3")
DECODER = ("model=tiny_decoder", "generate.max_new_tokens=8")


def asked(folder: Path, *overrides: str) -> Config:
    """A run on texts that are all as long as train.max_length."""
    texts = [f"{i} {'a word ' * 40}" for i in range(ROWS)]
    kind, answer = ("pairs", "yes no yes no yes no yes no") if DECODER[0] in overrides else ("local", None)
    rows = [{"text": text, "label": answer or f"c{i % 3}"} for i, text in enumerate(texts)]
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = (f"task={kind}", f"task.files.train={folder / 'mine.jsonl'}", "task.text=[text]", "task.label=label")
    return config(folder / "store", *data, *LONG, *overrides)


def measured(prepared: Prepared) -> int:
    """Bytes at the peak of the second step: weights and moments, and the most that is allocated above them."""
    trained, model = prepared.trained, prepared.model
    weights = [p for p in model.parameters() if p.requires_grad]
    batch = prepared.objective.batch("train", prepared.order.batch(0))
    assert batch["input_ids"].shape in ((16, 32), (16, 31))  # a decoder predicts its last token, and does not read it

    def step() -> None:
        with Workers(prepared.workers) as workers:
            backward(
                model.train(), batch, loss_of=prepared.objective.loss, scaler=trained.scaler, parameters=weights,
                workers=workers, parts=prepared.parts,
            )  # fmt: skip
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        trained.optimizer.step()
        trained.optimizer.zero_grad(set_to_none=True)

    step()
    state = [v for values in trained.optimizer.state.values() for v in values.values() if isinstance(v, torch.Tensor)]
    held = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers(), *state))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
    above = most = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            above += event.nbytes()
            most = max(most, above)
    return held + most


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        (*DECODER, "model.attention=sdpa", "model.gradient_checkpointing=true"),
        *(
            pytest.param(overrides, marks=pytest.mark.slow)
            for overrides in (
                ("train.precision=bf16", "lora.targets=[all]", "lora.rank=16"),
                ("model.gradient_checkpointing=true", "train.micro_batch_size=4"),
                ("method=full",),
                ("optim.name=adafactor", "method=full"),
                DECODER,
            )
        ),
    ],
    ids=["encoder", "decoder, recomputed", "bf16", "recomputed", "full", "adafactor", "decoder"],
)
def test_the_peak_is_within_15_percent_of_what_is_allocated(overrides: tuple[str, ...], tmp_path: Path) -> None:
    planned = plan(asked(tmp_path, *overrides))
    with Path(os.devnull).open("w") as nowhere:
        prepared = prepare(planned, Console(nowhere, nowhere), ALONE)
    found = predicted(planned)
    assert found is not None
    assert found.peak == pytest.approx(measured(prepared), rel=0.15)
    frozen = sum(p.nbytes for p in prepared.model.parameters() if not p.requires_grad)
    assert frozen <= found.frozen < 1.05 * frozen + 1e5  # with buffers


def test_quantised_maps_are_counted_by_their_bits(tmp_path: Path) -> None:
    sizes = {}
    for kind in ("null", *BITS):
        found = predicted(plan(asked(tmp_path, f"model.quantize={kind}", "train.precision=fp32")))
        assert found is not None
        sizes[kind] = found.frozen
    maps = (sizes["null"] - sizes["nf4"]) / (32 - BITS["nf4"])
    assert sizes["null"] - sizes["int8"] == pytest.approx(maps * (32 - BITS["int8"]), rel=1e-3)


def test_nothing_is_loaded_and_no_state_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Backbone:
        raise AssertionError("weights were read")

    monkeypatch.setattr("loralab.runs.build.load", refuse)
    state = torch.get_rng_state()
    assert predicted(plan(asked(tmp_path))) is not None
    assert torch.equal(torch.get_rng_state(), state)


def test_what_cannot_be_computed_without_numbers_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def looks(*_: Any) -> None:
        bool(torch.ones(1) > 0)

    monkeypatch.setattr("loralab.runs.memory._backward", looks)
    assert predicted(plan(asked(tmp_path))) is None
