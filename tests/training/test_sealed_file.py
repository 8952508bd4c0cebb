"""A sealed file is read by torch as before, and no flipped bit passes."""

import random
from pathlib import Path

import pytest
import torch

from loralab.training.sealed_file import CHUNK, refuse_damaged, seal

WEIGHTS = {"a": torch.arange(40.0), "b": torch.zeros(3, 2)}
STATE = {"weights": WEIGHTS, "step": 3}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "state.pt"
    torch.save(STATE, found)
    seal(found)
    return found


def test_a_sealed_file_is_whole_and_torch_reads_it(path: Path) -> None:
    refuse_damaged(path)
    found = torch.load(path, weights_only=True)
    assert found["step"] == 3 and all(torch.equal(found["weights"][name], w) for name, w in WEIGHTS.items())


def test_a_file_larger_than_a_block_is_whole_too(tmp_path: Path) -> None:
    torch.save(torch.zeros(CHUNK), tmp_path / "state.pt")
    seal(tmp_path / "state.pt")
    refuse_damaged(tmp_path / "state.pt")


def test_no_flipped_bit_passes_but_in_the_seal_itself(path: Path) -> None:
    whole, draw, passed = path.read_bytes(), random.Random(0), []
    for _ in range(300):
        at = draw.randrange(len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << draw.randrange(8))]) + whole[at + 1 :])
        try:
            refuse_damaged(path)
        except ValueError:
            continue
        passed.append(len(whole) - at)
    assert all(from_end <= 73 for from_end in passed), "the archive alone counts: its checksums still hold"


def test_a_file_without_seal_is_checked_by_its_checksums(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    torch.save(STATE, path)
    refuse_damaged(path)
    whole = path.read_bytes()
    at = whole.index(WEIGHTS["a"].numpy().tobytes()) + 50
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 64]) + whole[at + 1 :])
    with pytest.raises(ValueError, match="has changed since it was written"):
        refuse_damaged(path)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04" + b"0" * 200])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"zip|archive|magic"):
        refuse_damaged(tmp_path / "state.pt")
