"""Real processes, real kills: a run killed at the worst moments ends with the same bytes as an undisturbed run."""

import functools
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from loralab.errors import UserError
from loralab.runs.build import _Latest
from loralab.runs.run import run
from tests.processes import Process, Warm
from tests.small_runs import SMALL, config, cut_off, outcome

ROOT = Path(__file__).resolve().parents[1]
LONG = (
    "task.eval_rows=1000", "train.steps=240", "train.eval_every=80", "lora.dropout=0.1", "train.checkpoint_seconds=0.5",
    "optim.lr=1e-3",
)  # fmt: skip


def start(store: Path, *overrides: str, output: str = "output") -> Process:
    """Starts the command in a separate process, which writes to <store>/<output>."""
    command = [sys.executable, str(ROOT / "train.py"), *SMALL, *LONG, f"store={store}", *overrides]
    return Warm(command, store / output)


def finish(store: Path, *overrides: str) -> str:
    return start(store, *overrides).ends()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Method -> the store of its undisturbed run."""

    @functools.cache
    def of(method: str) -> Path:
        store = tmp_path_factory.mktemp("undisturbed")
        finish(store, f"method={method}")
        return store

    return of


def executed(store: Path) -> int:
    found = list(store.glob("runs/*/executed"))
    return int(found[0].read_text() or 0) if found else 0


def checkpoint_time(store: Path) -> int:
    found = list(store.glob("runs/*/checkpoint/state.pt"))
    return found[0].stat().st_mtime_ns if found else 0


def checkpointed_step(store: Path) -> int:
    from loralab.training import checkpoint

    (directory,) = store.glob("runs/*/checkpoint")
    state = checkpoint.load(directory)
    assert state is not None
    return int(state["progress"]["step"])


def just_after_a_checkpoint(store: Path) -> bool:
    return checkpoint_time(store) > 0


def between_two_checkpoints(store: Path) -> bool:
    if not checkpoint_time(store):
        return False
    first, at = checkpoint_time(store), executed(store)
    while checkpoint_time(store) == first and executed(store) < at + 5:
        time.sleep(0.001)
    return executed(store) >= at + 5


def during_evaluation(store: Path) -> bool:
    if executed(store) != 80:
        return False
    time.sleep(0.05)  # step 80 is done, and its evaluation, which takes some tenths of a second, has begun
    return executed(store) == 80 and '"validation"' not in next(store.glob("runs/*/metrics.jsonl")).read_text()


def during_the_final_write(store: Path) -> bool:
    return any(store.glob("runs/*/adapter/adapter_config.json")) or any(store.glob("runs/*/.model.*.tmp"))


def at_random(store: Path) -> bool:
    return executed(store) > 30 and os.urandom(1)[0] < 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "method"),
    [
        (just_after_a_checkpoint, "lora_plus"),
        (between_two_checkpoints, "lora_plus"),
        (during_evaluation, "lora_plus"),
        (during_the_final_write, "lora_plus"),
        (at_random, "lora_plus"),
        (between_two_checkpoints, "full"),
        (during_the_final_write, "full"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_resume_after_kill_is_bitwise_equal(
    moment: Callable[[Path], bool], method: str, undisturbed: Callable[[str], Path], tmp_path: Path
) -> None:
    process = start(tmp_path, f"method={method}")
    process.until(lambda: moment(tmp_path))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("runs/*/record.json"))
    before = executed(tmp_path)
    lost = before - checkpointed_step(tmp_path) if checkpoint_time(tmp_path) else before

    finish(tmp_path, f"method={method}")
    assert outcome(tmp_path) == outcome(undisturbed(method))
    record = json.loads(next(tmp_path.glob("runs/*/record.json")).read_text())
    assert record["timing"]["steps_executed"] == 240 + lost
    steps = [(line["split"], line["step"]) for line in outcome(tmp_path)["lines"]]
    assert len(steps) == len(set(steps))
    left = {path.name for path in next(tmp_path.glob("runs/*")).iterdir()}
    weights = "model" if method == "full" else "adapter"
    assert left == {weights, "config.yaml", "metrics.jsonl", "predictions.parquet", "record.json"}


@pytest.mark.slow
def test_resume_after_kill_is_bitwise_equal_also_with_probes(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for store in (whole, killed):
        store.mkdir()
    finish(whole, "probe.every=20")
    process = start(killed, "probe.every=20")
    process.until(lambda: between_two_checkpoints(killed))
    process.send_signal(signal.SIGKILL)
    process.wait()
    finish(killed, "probe.every=20")
    assert outcome(killed) == outcome(whole)
    steps = [line["step"] for line in outcome(killed)["lines"] if line["split"] == "probe"]
    assert steps == [1, *range(20, 241, 20)]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_checkpoints_and_the_same_command_goes_on(
    number: signal.Signals, status: int, undisturbed: Callable[[str], Path], tmp_path: Path
) -> None:
    process = start(tmp_path, "train.checkpoint_seconds=1000")
    process.until(lambda: executed(tmp_path) >= 60)
    process.send_signal(number)
    assert "run the same command again to resume" in process.ends(status)
    assert "going on from step" in finish(tmp_path)
    assert outcome(tmp_path) == outcome(undisturbed("lora_plus"))
    record = json.loads(next(tmp_path.glob("runs/*/record.json")).read_text())
    assert record["timing"]["steps_executed"] == 240


@pytest.mark.slow
def test_a_run_that_another_process_holds_is_refused_in_one_line(tmp_path: Path) -> None:
    holder = start(tmp_path, "train.steps=5000")
    holder.until(lambda: executed(tmp_path) >= 1)
    text = start(tmp_path, "train.steps=5000", output="second").ends(2)
    assert holder.poll() is None
    assert text.startswith("error: run tiny-rotten_tomatoes-lora-r8-x4-s0-")
    assert len(text.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("damaged", ["runs/*/checkpoint/state.pt", "cache/tokens/*.npz", "cache/digests/*"])
def test_no_flipped_bit_is_another_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: str) -> None:
    """It is refused in one line, or the cache is made again, or the bit means nothing."""
    run(config(tmp_path / "whole"))
    expected, draw, refused = outcome(tmp_path / "whole"), random.Random(0), 0
    cut_off(config(tmp_path / "cut"), monkeypatch, at=7)
    flips = 32 if "state" in damaged else 12
    for number in range(flips):
        store = tmp_path / f"{number}"
        shutil.copytree(tmp_path / "cut", store)
        for path in store.glob(damaged):
            content = bytearray(path.read_bytes())
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
            path.write_bytes(content)
        monkeypatch.setattr("loralab.runs.build._token_ids", _Latest())  # else nothing is read
        try:
            run(config(store))
            assert outcome(store) == expected
        except UserError:
            assert not list(store.glob("runs/*/record.json"))
            refused += 1
    assert (refused > flips // 2) == ("state" in damaged)
