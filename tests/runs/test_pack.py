"""A pack: each of its runs is the run alone, to rounding, whatever the others do."""

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from loralab.config.schema import Config
from loralab.errors import UserError
from loralab.methods.packed import PackedModel
from loralab.runs.console import Console
from loralab.runs.pack import Ending, passes, run_pack
from loralab.runs.plan import plan
from loralab.runs.run import run
from loralab.store.run_directory import RunDirectory
from loralab.training.signals import Interrupted, Interrupts
from tests.small_runs import config

FP32 = ("task=rotten_tomatoes", "train.precision=fp32", "optim.lr=2e-3", "optim.eps=1e-6")
DIVERGES = ("optim.lr=1e4", "optim.clip=null", "seed=2")
RUNS: tuple[tuple[str, ...], ...] = (
    ("seed=0",),
    ("seed=1", "optim.lr=1e-3", "lora.rank=4", "optim.weight_decay=0.1"),
    ("init_seed=3", "lora.init=B", "lora.alpha=16", "optim.schedule=constant"),
    ("method=lora", "lora.rank=2", "lora.ratio=1", "data_seed=7", "optim.clip=null"),
    DIVERGES,
    ("seed=5", "train.pause_at=4", "lora.ratio=16"),
)


def quiet() -> Console:
    return Console(io.StringIO(), io.StringIO(), title="")


def packed(configs: Sequence[Config]) -> list[Any]:
    """The records of runs that train in one pack."""
    endings = run_pack(configs, [quiet() for _ in configs])
    for ending in endings:
        if isinstance(ending, BaseException):
            raise ending
    return endings


def directory(asked: Config) -> RunDirectory:
    return plan(asked).directory


def lines(asked: Config) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory(asked).path / "metrics.jsonl").read_text().splitlines()]


def adapter(asked: Config) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_file(directory(asked).adapter / "adapter_model.safetensors")
    return found


def assert_alike(one: Config, other: Config) -> None:
    """The curves, scores and adapters of two runs are equal within 1e-5, of their size where that is above 1."""
    curves = [[{**line["values"], "step": line["step"]} for line in lines(each)] for each in (one, other)]
    assert len(curves[0]) == len(curves[1])
    for found, wanted in zip(*curves, strict=True):
        assert found == pytest.approx(wanted, rel=1e-5, abs=1e-5)
    if (directory(one).adapter).exists():
        wanted = adapter(other)
        for name, tensor in adapter(one).items():
            torch.testing.assert_close(tensor, wanted[name], rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Config], list[Config], list[Any]]:
    """RUNS trained alone and in one pack, and the records of the pack."""
    stores = [tmp_path_factory.mktemp(name) for name in ("alone", "packed")]
    alone, together = ([config(store, *FP32, *each) for each in RUNS] for store in stores)
    for each in alone:
        run(each, console=quiet())
    return alone, together, packed(together)


def test_runs_of_a_pack_are_the_runs_alone(trained: tuple[list[Config], list[Config], list[Any]]) -> None:
    alone, together, records = trained
    assert [record["status"] for record in records] == [*["success"] * 4, "diverged", "paused"]
    for one, other, record in zip(together, alone, records, strict=True):
        assert directory(one).path.name == directory(other).path.name, "a run's hash does not depend on the pack"
        wanted: Any = directory(other).record()
        assert (record["status"], record["steps"], record["packed"]) == (wanted["status"], wanted["steps"], len(RUNS))
        assert wanted["packed"] == 1
        assert record["timing"]["steps_executed"] == wanted["timing"]["steps_executed"]
        if record["status"] != "diverged":
            assert_alike(one, other)


def test_a_paused_run_of_a_pack_goes_on_alone(trained: tuple[list[Config], list[Config], list[Any]]) -> None:
    alone, together, _ = trained
    for each in (alone[-1], together[-1]):
        each.train.pause_at = None
        assert run(each, console=quiet())["timing"]["steps_executed"] == 12
    assert_alike(together[-1], alone[-1])
    assert directory(together[-1]).record()["packed"] == len(RUNS)  # type: ignore[index, typeddict-item]


@pytest.mark.parametrize("model", ["tiny_decoder"])
def test_decoders_pack_too(model: str, tmp_path: Path) -> None:
    settings = (*FP32, f"model={model}", "train.steps=6")
    alone, together = (
        [config(tmp_path / name, *settings, f"seed={seed}", f"lora.rank={4 + seed}") for seed in (0, 1)]
        for name in ("alone", "packed")
    )
    for each in alone:
        run(each, console=quiet())
    assert [record["packed"] for record in packed(together)] == [2, 2]
    for one, other in zip(together, alone, strict=True):
        assert_alike(one, other)


def test_runs_that_are_asked_to_stop_go_on_from_their_checkpoints(
    trained: tuple[list[Config], list[Config], list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, _, _ = trained
    together = [config(tmp_path, *FP32, *each) for each in RUNS[:3]]
    looks = 0

    def look(self: Interrupts) -> None:
        nonlocal looks
        looks += 1
        if looks == 23:
            self.noted = 15
        if self.noted is not None:
            raise Interrupted(self.noted)

    with monkeypatch.context() as patch:
        patch.setattr(Interrupts, "check", look)
        endings = run_pack(together, [quiet() for _ in together])
    assert all(isinstance(ending, Interrupted) for ending in endings)
    assert [record["timing"]["steps_executed"] for record in packed(together)] == [12, 12, 12]
    for one, other in zip(together, alone, strict=False):
        assert_alike(one, other)


def test_a_failure_is_that_of_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [config(tmp_path, *FP32, f"seed={seed}") for seed in (0, 1)]
    save = RunDirectory.finish

    def finish(self: RunDirectory, record: Any) -> None:
        if record["status"] == "success" and self.path == directory(asked[0]).path:
            raise OSError("the disk is full")
        save(self, record)

    monkeypatch.setattr(RunDirectory, "finish", finish)
    endings: list[Ending] = run_pack([*asked, config(tmp_path, *FP32, "lora.targets=[nope]")], [quiet()] * 3)
    assert isinstance(endings[0], OSError)
    assert isinstance(endings[1], dict) and endings[1]["status"] == "success"
    assert isinstance(endings[2], UserError)


@pytest.mark.parametrize("broken", ["forward", "gradients"])
def test_what_a_pack_cannot_compute_trains_alone_with_a_warning(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A pass that fails, as for want of memory, and one that mixes the runs."""

    def forward(*_: Any) -> Tensor:
        raise RuntimeError("out of memory")

    real = PackedModel.forward

    def mixed(self: Any, runs: Sequence[int], batch: dict[str, Tensor]) -> Tensor:
        return real(self, runs, {**batch, "input_ids": batch["input_ids"].flip(0)})

    monkeypatch.setattr(PackedModel, "forward", forward if broken == "forward" else mixed)
    settings = (*FP32, "train.steps=4")
    together = [config(tmp_path / "packed", *settings, f"seed={seed}") for seed in (0, 1)]
    records = packed(together)
    assert [(record["status"], record["packed"]) for record in records] == [("success", 1)] * 2
    assert "the runs of a pack train one after another: " in caplog.text
    alone = config(tmp_path / "alone", *settings, "seed=1")
    run(alone, console=quiet())
    assert (directory(together[1]).adapter / "adapter_model.safetensors").read_bytes() == (
        directory(alone).adapter / "adapter_model.safetensors"
    ).read_bytes()


def test_clocks_of_a_pack_add_up_to_its_time(trained: tuple[list[Config], list[Config], list[Any]]) -> None:
    """A run's seconds are its share: packed or alone, they are what the run costs."""
    _, _, records = trained
    seconds = [record["timing"]["seconds"] for record in records[:4]]
    assert max(seconds) < 0.6 * sum(seconds)


def test_passes_hold_similar_lengths_of_equally_many_rows() -> None:
    shapes = [(8, 10), (8, 40), (8, 12), (4, 40), (8, 39)]
    assert passes(shapes, most=math.inf, padded=math.inf) == [[0, 1, 2, 4], [3]]
    assert passes(shapes, most=math.inf, padded=1.2) == [[1, 4], [0, 2], [3]]
    assert passes(shapes, most=8 * 40, padded=math.inf) == [[1], [4], [0, 2], [3]]
    assert passes(shapes, most=1, padded=math.inf) == [[1], [4], [2], [0], [3]]
