"""Tests of trackers: an offline W&B run has the logged values, its errors end no run, and `none` writes nothing."""

import contextlib
import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from loralab.store.trackers import NoTracker, Tracker, WandbTracker, open_tracker, wandb_mode

LINE = {"step": 10, "split": "train", "values": {"loss": 0.5}, "lr_A": 1e-3, "lr_B": 16e-3, "seconds": 1.5}


def tracker(directory: Path, **settings: Any) -> Tracker:
    given: dict[str, Any] = {"kind": "wandb", "mode": "offline", "name": "run-name", "run_id": "0123456789"}
    given |= {"project": "p", "entity": None, "group": "study", "tags": ["a"], "config": {"lora": {"ratio": 16.0}}}
    return open_tracker(**{**given, **settings}, directory=directory)


def records(directory: Path, run_id: str = "*") -> list[Any]:
    """What the finished run's file holds; W&B's own process may still be writing it when `finish` returns."""
    for _ in range(200):
        found = _records(directory, run_id)
        if found and found[-1].WhichOneof("record_type") == "exit":
            break
        time.sleep(0.05)
    return found


def _records(directory: Path, run_id: str) -> list[Any]:
    """A .wandb file is LevelDB's log format: blocks of 32 KiB; a header of crc, length and type a chunk."""
    from wandb.proto import wandb_internal_pb2

    (path,) = directory.glob(f"wandb/offline-run-*-{run_id}/*.wandb")
    data, at, found, whole = path.read_bytes(), 7, [], b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            found.append(wandb_internal_pb2.Record.FromString(whole))
            whole = b""
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning:wandb")
def test_an_offline_run_holds_lines_config_group_and_summary(tmp_path: Path) -> None:
    with tracker(tmp_path) as opened:
        opened.log(LINE)
        opened.summarise({"test": {"last": {"accuracy": 0.8}}})
    kept = records(tmp_path)
    (run,) = [r.run for r in kept if r.WhichOneof("record_type") == "run"]
    assert (run.run_id, run.run_group, run.project, list(run.tags)) == ("0123456789", "study", "p", ["a"])
    assert {u.key: json.loads(u.value_json) for u in run.config.update}["lora"] == {"ratio": 16.0}
    (history,) = [r.history for r in kept if r.WhichOneof("record_type") == "history"]
    told = {(i.key or ".".join(i.nested_key)): json.loads(i.value_json) for i in history.item}
    assert (told["_step"], told["train/loss"], told["lr_B"]) == (10, 0.5, 16e-3)
    assert any("accuracy" in str(r.summary) for r in kept if r.WhichOneof("record_type") == "summary")
    assert any(r.WhichOneof("record_type") == "exit" for r in kept)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:wandb")
def test_it_is_finished_also_after_an_exception(tmp_path: Path) -> None:
    with pytest.raises(KeyError), tracker(tmp_path) as opened:
        opened.log(LINE)
        raise KeyError
    (end,) = [r.exit for r in records(tmp_path) if r.WhichOneof("record_type") == "exit"]
    assert end.exit_code == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning:wandb")
def test_runs_of_one_process_never_merge_also_where_one_of_them_raised(tmp_path: Path) -> None:
    for number in range(3):
        with contextlib.suppress(KeyError), tracker(tmp_path, run_id=f"run{number}") as opened:
            opened.log({**LINE, "values": {"loss": float(number)}})
            if number == 1:
                raise KeyError
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 3
    for number in range(3):
        kept = records(tmp_path, f"run{number}")
        (run,) = [r.run for r in kept if r.WhichOneof("record_type") == "run"]
        assert (run.run_id, run.run_group) == (f"run{number}", "study")
        (history,) = [r.history for r in kept if r.WhichOneof("record_type") == "history"]
        told = {(i.key or ".".join(i.nested_key)): json.loads(i.value_json) for i in history.item}
        assert told["train/loss"] == number


def test_a_tracker_that_cannot_start_is_one_warning_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tracker(tmp_path, mode="no such mode") as opened:
        opened.log(LINE)
        opened.summarise({})
    assert [r.message.startswith("wandb failed, and the run goes on without it") for r in caplog.records] == [True]


def test_none_and_disabled_write_nothing(tmp_path: Path) -> None:
    for off in (tracker(tmp_path, kind="none"), tracker(tmp_path, mode="disabled")):
        assert isinstance(off, NoTracker)
        with off:
            off.log(LINE)
            off.summarise({})
    assert list(tmp_path.iterdir()) == []


def test_auto_is_online_where_a_key_is_at_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    assert wandb_mode() == "offline"
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine api.wandb.ai login user password secret\n")
    netrc.chmod(0o600)
    assert wandb_mode() == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert wandb_mode() == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "k")
    assert wandb_mode() == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert wandb_mode() == "offline"
    assert isinstance(tracker(tmp_path), WandbTracker)
