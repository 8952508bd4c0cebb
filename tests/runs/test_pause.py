"""Laws of `train.pause_at`: a run that paused, wherever and however often, ends in the bytes of one that did not."""

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from loralab.errors import UserError
from loralab.runs.export import export
from loralab.runs.load import load_run
from loralab.runs.plan import plan
from loralab.runs.run import run
from loralab.store.run_directory import RunDirectory, standing, status
from tests.processes import Warm
from tests.small_runs import CONF, SMALL, config, cut_off, outcome
from tests.test_end_to_end import executed

STEPS = 12  # of a small run
DIVERGES = ("optim.lr=1e6", "optim.clip=null", "train.steps=40", "optim.warmup=0")


def directory(store: Path) -> RunDirectory:
    (path,) = store.glob("runs/*")
    return RunDirectory(path)


def files(store: Path) -> list[str]:
    return sorted(str(path.relative_to(store)) for path in store.glob("runs/**/*"))


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("lora.dropout=0.1", "model.dropout=0.1", "train.eval_first=true", "train.eval_every=0.1"),
        ("probe.every=2", "train.log_every=5"),
        ("method=intrinsic", "intrinsic.dim=50"),
        ("method=dora", "train.precision=bf16"),
        ("method=full", "train.eval_every=null", "train.steps=null", "train.epochs=1.5"),
    ],
    ids=lambda options: " ".join(options) or "plain",
)
def test_a_run_that_pauses_ends_as_if_it_never_did(options: tuple[str, ...], tmp_path: Path) -> None:
    whole = run(config(tmp_path / "whole", *options))
    for at in (1, 0.5):
        paused = run(config(tmp_path / "paused", *options, f"train.pause_at={at}"))
        assert (paused["status"], paused["steps"]) == ("paused", STEPS // 2 if at == 0.5 else at)
        assert paused["metrics"].keys() == {"primary", "validation"}
    ended = run(config(tmp_path / "paused", *options))
    assert ended["timing"]["steps_executed"] == whole["steps"] == STEPS
    assert outcome(tmp_path / "paused") == outcome(tmp_path / "whole")
    assert files(tmp_path / "paused") == files(tmp_path / "whole")
    assert {**ended["config"], "store": ""} == {**whole["config"], "store": ""}


def test_a_pause_is_no_other_run(tmp_path: Path) -> None:
    assert plan(config(tmp_path, "train.pause_at=0.3")).directory == plan(config(tmp_path)).directory


def test_what_a_paused_run_has_come_to(tmp_path: Path) -> None:
    record = run(config(tmp_path, "train.pause_at=7"))
    its = directory(tmp_path)
    assert its.record() == json.loads((its.path / "record.json").read_text()) == record
    assert record["status"] == "paused" and (record["steps"], record["total_steps"]) == (7, STEPS)
    assert record["metrics"]["validation"]["last"]["step"] == 6, "no evaluation that an undisturbed run has not"
    assert (its.checkpoint / "state.pt").is_file() and not its.adapter.exists() and not its.predictions.exists()
    now = standing(its)
    assert (now.status, now.step, now.record) == ("paused", 7, record)
    assert status(its) == "paused at step 7 of 12" and its.finished() is None
    first = run(config(tmp_path / "early", "train.pause_at=2"))
    assert first["metrics"]["validation"] == {"best": None, "last": None}


def test_a_pause_that_is_reached_trains_and_loads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = run(config(tmp_path, "train.pause_at=6"))
    monkeypatch.setattr("loralab.runs.run.prepare", None)
    before = files(tmp_path)
    line = f"paused at step 6 of 12 (validation loss {record['metrics']['validation']['last']['loss']:.4f})"
    for at in ("0.5", "2", "6"):
        capsys.readouterr()
        assert run(config(tmp_path, f"train.pause_at={at}")) == record
        told = capsys.readouterr().out.splitlines()
        assert told[0] == "this run is already there; its record:"
        assert told[1] == f"{line}; the same command without train.pause_at goes on"
    assert files(tmp_path) == before


def test_a_pause_at_the_end_is_none_and_a_finished_run_does_not_pause(tmp_path: Path) -> None:
    record = run(config(tmp_path, "train.pause_at=0.99"))
    assert record["status"] == "success"
    assert run(config(tmp_path, "train.pause_at=3")) == record


def test_a_run_that_diverges_before_its_pause_is_final(tmp_path: Path) -> None:
    record = run(config(tmp_path, *DIVERGES, "train.pause_at=39"))
    assert record["status"] == "diverged" and record["steps"] < 39
    assert run(config(tmp_path, *DIVERGES)) == record


def test_a_run_that_was_cut_off_after_its_pause_is_paused_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(config(tmp_path / "whole"))
    run(config(tmp_path / "cut", "train.pause_at=2"))
    cut_off(config(tmp_path / "cut"), monkeypatch, at=5)
    assert status(directory(tmp_path / "cut")) == "paused at step 2 of 12", "that is all that is known to be there"
    record = run(config(tmp_path / "cut", "train.pause_at=3"))
    assert record["status"] == "paused" and record["steps"] > 3
    assert run(config(tmp_path / "cut"))["timing"]["steps_executed"] == STEPS
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


def test_a_failure_after_a_pause_costs_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of luck")

    run(config(tmp_path, "train.pause_at=4"))
    with monkeypatch.context() as patch:
        patch.setattr("loralab.runs.run.train", broken)
        with pytest.raises(RuntimeError, match="out of luck"):
            run(config(tmp_path))
    assert standing(directory(tmp_path)).status == "failed"
    assert run(config(tmp_path, "train.pause_at=4"))["steps"] == 4
    assert run(config(tmp_path))["timing"]["steps_executed"] == STEPS


def test_what_needs_trained_weights_says_how_to_get_them(tmp_path: Path) -> None:
    run(config(tmp_path, "train.pause_at=3"))
    its = directory(tmp_path)
    line = "paused at step 3 of 12; run its command without train.pause_at to finish it"
    with pytest.raises(UserError, match=line):
        export(its, tmp_path / "out", merged=False, dtype="fp32")
    with pytest.raises(UserError, match=line):
        load_run(its.path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_random_pauses_with_a_kill_after_each_change_nothing(seed: int, tmp_path: Path) -> None:
    """Each pause is followed by a command without one, which SIGKILL ends at a random step."""
    options = ("train.steps=240", "train.eval_every=0.1", "lora.dropout=0.1", "train.checkpoint_seconds=0.2")
    run(config(tmp_path / "whole", *options))
    store, draw = tmp_path / "paused", random.Random(seed)
    command = [sys.executable, str(CONF.parent / "train.py"), *SMALL, *options, f"store={store}"]

    for at in sorted(draw.sample(range(10, 150), 3)):
        Warm([*command, f"train.pause_at={at}"], tmp_path / f"pause{at}").ends()
        record = directory(store).record()
        assert record is not None and record["status"] == "paused" and record["steps"] >= at
        going_on, until = Warm(command, tmp_path / f"kill{at}"), executed(store) + draw.randrange(40)
        going_on.until(lambda until=until: executed(store) > until)  # type: ignore[misc]
        going_on.kill_tree()
    Warm(command, tmp_path / "end").ends()
    assert outcome(store) == outcome(tmp_path / "whole")
    assert files(store) == files(tmp_path / "whole")
