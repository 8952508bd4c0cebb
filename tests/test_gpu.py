"""On a CUDA device: the CPU's losses, training in low precision, exact resumption. Skipped without one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from loralab.runs.run import run
from loralab.training.session import Session
from loralab.training.signals import Interrupted
from tests.small_runs import config, outcome

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and there is none"),
]


def losses(store: Path) -> list[float]:
    (path,) = store.glob("runs/*/metrics.jsonl")
    lines: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
    return [line["values"]["loss"] for line in lines if line["split"] == "train"]


def test_cuda_in_fp32_has_the_losses_of_the_cpu(tmp_path: Path) -> None:
    for device in ("cpu", "cuda"):
        run(config(tmp_path / device, f"train.device={device}", "train.precision=fp32", "model.attention=eager"))
    assert losses(tmp_path / "cuda") == pytest.approx(losses(tmp_path / "cpu"), abs=1e-3)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_quantised_maps_on_cuda_have_the_losses_of_the_cpu(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("bitsandbytes", reason="needs the extra `quantize`")
    for device in ("cpu", "cuda"):
        place = (f"train.device={device}", "train.precision=fp32", "model.attention=eager")
        run(config(tmp_path / device, f"model.quantize={kind}", *place))
    assert losses(tmp_path / "cuda") == pytest.approx(losses(tmp_path / "cpu"), abs=1e-3)


@pytest.mark.parametrize("method", ["lora_plus", "full"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("model", ["tiny", pytest.param("minilm", marks=pytest.mark.slow)])
def test_every_precision_trains(tmp_path: Path, model: str, precision: str, method: str) -> None:
    rate = "2e-4" if method == "full" else "1e-3"
    kind = (f"model={model}", f"method={method}", f"optim.lr={rate}")
    options = (*kind, "train.device=cuda", f"train.precision={precision}", "train.steps=60")
    record = run(config(tmp_path, *options))
    found = losses(tmp_path)
    assert record["status"] == "success"
    assert sum(found[-10:]) < sum(found[:10])
    assert (record["memory"]["device_bytes"] or 0) > 0
    assert record["timing"]["steps_executed"] == 60


@pytest.mark.parametrize("method", ["lora_plus", "full"])
@pytest.mark.parametrize(("precision", "optimizer"), [("fp32", "adamw"), ("fp16", "adamw"), ("fp32", "adafactor")])
def test_resume_on_cuda_is_bitwise_equal(
    tmp_path: Path, precision: str, optimizer: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = (f"method={method}", "train.device=cuda", f"train.precision={precision}")
    rates = (f"optim.name={optimizer}", "optim.lr=1e-3")
    options = (*place, *rates, "lora.dropout=0.1", "train.checkpoint_seconds=0")
    run(config(tmp_path / "whole", *options))

    between = Session.between_steps

    def cut(self: Session) -> None:
        if self.progress.step == 7:
            raise Interrupted(15)
        between(self)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Session, "between_steps", cut)
        run(config(tmp_path / "cut", *options))
    run(config(tmp_path / "cut", *options))
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")
