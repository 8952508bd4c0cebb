"""Everything a run does, on a GPU that the CPU plays: no tensor stays on the host, and no step waits for the device."""

import io
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from loralab import device
from loralab.methods.registry import CATALOGUE
from loralab.runs import batch
from loralab.runs.console import Console
from loralab.runs.pack import run_pack
from loralab.runs.run import run
from loralab.training import gradient
from loralab.training.session import Session
from tests.pretended_gpu import Gpu, pretended_gpu
from tests.small_runs import config, cut_off, outcome

SQL = ("task=sql", "generate.max_new_tokens=4", "train.max_length=128")
FEW = ("train.steps=4", "train.eval_every=2", "task.train_rows=24", "task.eval_rows=16")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    with pretended_gpu() as made:
        monkeypatch.setattr(device, "pick_device", lambda *_, **__: torch.device("pretended", 0))
        yield made


def of_cpu(store: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> dict[str, Any]:
    """The outcome of the same run on the CPU, in one part a batch, as a GPU has it."""
    from loralab.runs import prepare

    monkeypatch.setattr(prepare, "CPU_PARTS", 1)
    run(config(store, "model.attention=sdpa", *options))
    return outcome(store)


def losses(found: dict[str, Any]) -> list[float]:
    return [line["values"]["loss"] for line in found["lines"]]


@pytest.mark.parametrize("method", CATALOGUE)
def test_every_method_has_the_losses_of_the_cpu(
    method: str, gpu: Gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(config(tmp_path / "gpu", f"method={method}", "optim.lr=1e-3", *FEW))
    assert gpu.operations > 500
    monkeypatch.setattr(device, "pick_device", lambda *_, **__: torch.device("cpu"))
    expected = of_cpu(tmp_path / "cpu", monkeypatch, f"method={method}", "optim.lr=1e-3", *FEW)
    assert losses(outcome(tmp_path / "gpu")) == pytest.approx(losses(expected), abs=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        ("model=tiny_decoder", *SQL),
        ("model=tiny_seq2seq", *SQL, "generate.beams=2"),
        ("probe.every=2", "train.precision=bf16"),
        ("train.keep=best", "train.patience=1", "lora.dropout=0.1"),
        ("model.quantize=int8", "method=dora"),
    ],
    ids=["decoder", "seq2seq", "probes", "best", "int8"],
)
def test_every_objective_ends(options: tuple[str, ...], gpu: Gpu, tmp_path: Path) -> None:
    if any(option.startswith("model.quantize") for option in options):
        pytest.importorskip("bitsandbytes", reason="needs the extra `quantize`")
    assert run(config(tmp_path, *options, *FEW))["status"] == "success"


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_keeps_what_is_trained_in_fp32(
    precision: str, method: str, gpu: Gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "pick_precision", lambda asked, *_, **__: asked)
    found: dict[str, set[torch.dtype]] = {}
    finish = Session.save

    def look(session: Session) -> None:
        state = session.trained.optimizer.state.values()
        found["trained"] = {weight.dtype for weight in session.trained.weights.values()}
        found["moments"] = {own[name].dtype for own in state for name in ("exp_avg", "exp_avg_sq")}
        finish(session)

    monkeypatch.setattr(Session, "save", look)
    record = run(config(tmp_path, f"method={method}", f"train.precision={precision}", "optim.lr=1e-3", *FEW))
    assert record["status"] == "success"
    assert found == {"trained": {torch.float32}, "moments": {torch.float32}}


def test_a_cut_run_goes_on_to_the_same_bytes(gpu: Gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("lora.dropout=0.1", *FEW)
    run(config(tmp_path / "whole", *options))
    cut_off(config(tmp_path / "cut", *options), monkeypatch, at=4)
    run(config(tmp_path / "cut", *options))
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


def waits_of_steps(gpu: Gpu) -> list[tuple[str, str]]:
    """Of training alone, without evaluations and checkpoints: what was waited for, and the function that asked."""
    own = [(wait[0], wait[1:]) for wait in gpu.waits]
    forward = [(name, asked[-1]) for name, asked in own if "training/gradient.py:backward" in asked]
    around = ("training/loop.py:train", "runs/batch.py:alone")
    return forward + [(name, asked[-1]) for name, asked in own if asked and asked[-1] in around]


# What a step waits for all the same: transformers looks whether a batch has padding, and the number of the targets,
# which a decoder's logits are computed for, decides a tensor's size.
KNOWN = {
    "tiny": [("_local_scalar_dense", "masking_utils.py:_ignore_bidirectional_mask_sdpa")],
    "tiny_decoder": [
        *[("_local_scalar_dense", "masking_utils.py:_ignore_causal_mask_sdpa")] * 2,
        ("index", "modeling_utils.py:slice_logits_to_keep"),
        ("index", "runs/generation.py:loss"),
    ],
}


@pytest.mark.parametrize(
    ("model", "options"),
    [("tiny", ()), ("tiny_decoder", SQL), ("tiny", ("optim.name=adafactor", "optim.lr=1e-3", "model.quantize=nf4"))],
    ids=["encoder", "decoder", "adafactor and nf4"],
)
def test_a_step_waits_for_no_other_value_of_the_device(
    model: str, options: tuple[str, ...], gpu: Gpu, tmp_path: Path
) -> None:
    """The losses come to the host when they are logged, and the first at once."""
    if "model.quantize=nf4" in options:
        pytest.importorskip("bitsandbytes", reason="needs the extra `quantize`")
    run(config(tmp_path, f"model={model}", *options, "train.log_every=4", *FEW))
    logged = Counter({("_local_scalar_dense", "training/loop.py:train"): 1 + 4})
    allowed = Counter(KNOWN[model] * 4) + logged
    assert Counter(waits_of_steps(gpu)) - allowed == Counter()


def plant(monkeypatch: pytest.MonkeyPatch, planted: Callable[[Tensor], Tensor]) -> None:
    """Puts a mistake into the loss of each step."""
    scale = gradient.backward

    def wrong(*args: Any, **named: Any) -> Tensor:
        return planted(scale(*args, **named))

    monkeypatch.setattr(batch, "backward", wrong)


@pytest.mark.parametrize(
    "planted",
    [lambda loss: loss + torch.ones(1), lambda loss: torch.from_numpy(loss.numpy())],
    ids=["a tensor left on the host", "numpy of a tensor of the device"],
)
def test_a_planted_mistake_is_found(
    planted: Callable[[Tensor], Tensor], gpu: Gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, planted)
    with pytest.raises((RuntimeError, TypeError), match=r"same device|numpy"):
        run(config(tmp_path, *FEW))


def test_a_planted_wait_is_found(gpu: Gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, lambda loss: loss if loss > 0 else -loss)
    run(config(tmp_path, "train.log_every=4", *FEW))
    assert Counter(waits_of_steps(gpu))["_local_scalar_dense", "runs/batch.py:alone"] == 4


@pytest.mark.parametrize("model", KNOWN)
def test_a_pack_has_the_losses_of_the_cpu_and_its_steps_wait_for_no_other_value(
    model: str, gpu: Gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (f"model={model}", "optim.lr=1e-3", *(() if model == "tiny" else SQL), *FEW)
    together = [config(tmp_path / f"gpu{seed}", *options, f"seed={seed}") for seed in (0, 1)]
    records: list[Any] = run_pack(together, [Console(io.StringIO(), io.StringIO(), title="") for _ in together])
    assert [record["packed"] for record in records] == [2, 2]
    waits = Counter((wait[0], wait[-1]) for wait in gpu.waits if "runs/pack.py:_gradients" in wait)
    sizes = {("_to_copy", "runs/pack.py:_by_run"): 4}  # the number of each run's targets
    assert waits - Counter(KNOWN[model] * 8) - Counter({} if model == "tiny" else sizes) == Counter()
    monkeypatch.setattr(device, "pick_device", lambda *_, **__: torch.device("cpu"))
    expected = of_cpu(tmp_path / "cpu", monkeypatch, *options, "seed=1")
    assert losses(outcome(tmp_path / "gpu1")) == pytest.approx(losses(expected), abs=1e-5)
