"""A record is whole, or refused in one line that names the file and what is wrong with it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from loralab.errors import UserError
from loralab.store.record_file import read_record
from tests.store.records import SCORES, record

STATUSES = ("success", "diverged", "failed")


@pytest.mark.parametrize("status", STATUSES)
def test_a_whole_record_is_given_back_with_keys_that_are_not_known(tmp_path: Path, status: str) -> None:
    path, whole = tmp_path / "record.json", record(status, of_a_later_version={"a": [1]})
    path.write_text(json.dumps(whole))
    found: Any = read_record(path)
    assert found == whole


def test_no_file_is_no_record(tmp_path: Path) -> None:
    assert read_record(tmp_path / "record.json") is None
    (tmp_path / "file").touch()
    assert read_record(tmp_path / "file" / "record.json") is None


def scored(**of_validation: Any) -> dict[str, Any]:
    return {"metrics": {"primary": "accuracy", "validation": {"best": None, "last": SCORES} | of_validation}}


DAMAGED = {
    "no JSON": "{",
    "nothing": "",
    "another kind": "[]",
    "null": "null",
    "no keys": "{}",
    "half": '{"status": "success"}',
    "brackets": "[" * 200_000,
    "NaN": json.dumps(record("success", steps=float("nan"))),
    "infinite": json.dumps(record("success")).replace('"steps": 3', '"steps": 1e400'),
    "digits": json.dumps(record("success")).replace('"steps": 3', '"steps": ' + "9" * 5000),
    "more than a float holds": json.dumps(record("success")).replace('"steps": 3', '"steps": 1' + "0" * 400),
    "a time beyond a float": json.dumps(record("success", started=0.5)).replace("0.5", "1" + "0" * 400),
    "no metrics": json.dumps(record("success", metrics=None)),
    "no scores": json.dumps(record("success", metrics={"primary": "accuracy"})),
    "a text for a score": json.dumps(record("success", **scored(last={**SCORES, "accuracy": "high"}))),
    "no step": json.dumps(record("success", **scored(last={"accuracy": 0.5}))),
    "no primary metric": json.dumps(record("success", **scored(last={"step": 3, "loss": 1.0}))),
    "a split without scores": json.dumps(record("success", **scored(last=3))),
    "no time": json.dumps(record("failed", ended=1e20)),
    "a time before all": json.dumps(record("success", started=-1e20)),
    "a text for a time": json.dumps(record("success", ended="now")),
    "true for a number": json.dumps(record("success", steps=True)),
    "a list of numbers for groups": json.dumps(record("success", groups=[3])),
    "no error": json.dumps(record("failed", error=None)),
    "another status": json.dumps(record("success") | {"status": "paused"}),
    "no config": json.dumps({k: v for k, v in record("success").items() if k != "config"}),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_record_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"record.json is damaged \(.+\); remove it") as raised:
        read_record(path)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 500


def test_a_record_that_may_not_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("loralab.store.record_file.read_regular", refuse)
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\); allow yourself to read it"):
        read_record(tmp_path / "record.json")


def test_what_is_not_a_file_is_one_line_and_waits_for_nobody(tmp_path: Path) -> None:
    fifo, folder, loop, binary = (tmp_path / name for name in ("fifo", "folder", "loop", "binary"))
    os.mkfifo(fifo)
    folder.mkdir()
    loop.symlink_to(loop)
    binary.write_bytes(b"\xff\xfe\xfd")
    for path in (fifo, folder, loop, binary):
        with pytest.raises(UserError, match="is damaged"):
            read_record(path)
