"""Tests of W&B: an offline run has lines, config, group, status and summary; runs never merge; when it is online."""

import contextlib
import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from loralab.store.trackers import Mirrored
from loralab.store.wandb_mirror import wandb_mode
from tests import pages
from tests.pages import METRICS, line

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:wandb")


def tracker(store: Path, **settings: Any) -> Mirrored:
    return pages.tracker(store, "wandb", **{"mode": "offline", **settings})


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


def of(kept: list[Any], kind: str) -> list[Any]:
    """The records of one kind."""
    return [getattr(record, kind) for record in kept if record.WhichOneof("record_type") == kind]


def values(history: Any) -> dict[str, Any]:
    return {(item.key or ".".join(item.nested_key)): json.loads(item.value_json) for item in history.item}


def test_an_offline_run_holds_lines_config_group_status_and_summary(tmp_path: Path) -> None:
    with tracker(tmp_path) as opened:
        opened.begin([])
        (folder,) = tmp_path.glob("wandb/offline-run-*-0123456789")
        assert opened.where is not None and opened.where.run == f"{folder}; `wandb sync {folder}` uploads it"
        assert opened.where.every == f"{folder.parent}; `cd {tmp_path} && wandb sync` uploads what is there"
        opened.log(line(10))
        opened.summarise("diverged", METRICS)
    kept = records(tmp_path)
    (run,) = of(kept, "run")
    assert (run.run_id, run.run_group, run.project, list(run.tags)) == ("0123456789", "study", "p", ["a"])
    config = {update.key: json.loads(update.value_json) for update in run.config.update}
    assert config["lora"]["ratio"] == 16 and config["code"]["commit"] == "abc"
    (history,) = of(kept, "history")
    told = values(history)
    assert (told["_step"], told["train/loss"], told["lr_B"]) == (10, 0.1, 16e-3)
    summary = {update.key: update.value_json for each in of(kept, "summary") for update in each.update}
    assert json.loads(summary["status"]) == "diverged" and json.loads(summary["test"])["last"]["loss"] == 0.6
    (end,) = of(kept, "exit")
    assert end.exit_code == 0


def test_it_is_finished_also_after_an_exception_with_the_status(tmp_path: Path) -> None:
    with pytest.raises(KeyError), tracker(tmp_path) as opened:
        opened.begin([])
        opened.log(line(1))
        raise KeyError
    kept = records(tmp_path)
    (end,) = of(kept, "exit")
    assert end.exit_code == 1
    assert any(
        update.key == "status" and "failed" in update.value_json for s in of(kept, "summary") for update in s.update
    )


def test_runs_of_one_process_never_merge_also_where_one_of_them_raised(tmp_path: Path) -> None:
    for number in range(3):
        with contextlib.suppress(KeyError), tracker(tmp_path, run_id=f"run{number}") as opened:
            opened.begin([])
            opened.log(line(10, loss=float(number)))
            if number == 1:
                raise KeyError
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 3
    for number in range(3):
        kept = records(tmp_path, f"run{number}")
        (run,) = of(kept, "run")
        assert (run.run_id, run.run_group) == (f"run{number}", "study")
        (history,) = of(kept, "history")
        assert values(history)["train/loss"] == number


def test_a_tracker_that_cannot_start_is_one_warning_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tracker(tmp_path, mode="no such mode") as opened:
        opened.begin([])
        opened.log(line(1))
        assert opened.where is None
    assert [r.message.startswith("wandb failed, and the run goes on without it") for r in caplog.records] == [True]


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
