"""Files of tensors are read without running code; what is damaged is one line that names the folder and the file."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from loralab.errors import UserError
from loralab.methods.formats.tensor_file import read_json, read_tensors, shown

NAMES = ("a.safetensors", "a.bin")


class Call:
    """Raises when it is unpickled."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("code from the file was run",)


def refused(directory: Path, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_tensors(directory, NAMES, ("config.json", NAMES[0]))
    assert "\n" not in str(error.value) and str(error.value).startswith(f"{directory}: ")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_both_forms_give_the_same_tensors_and_the_first_is_preferred(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {"x": torch.randn(2, 3).to(dtype)}
    torch.save(tensors, tmp_path / "a.bin")
    assert torch.equal(read_tensors(tmp_path, NAMES, NAMES)["x"], tensors["x"])
    save_file({"y": tensors["x"]}, tmp_path / "a.safetensors")
    found = read_tensors(tmp_path, NAMES, NAMES)
    assert list(found) == ["y"] and torch.equal(found["y"], tensors["x"]) and found["y"].dtype == dtype


@pytest.mark.parametrize("content", [{"x": Call()}, Call(), [1, 2], b"text", {"x": 1}])
@pytest.mark.parametrize("by_torch", [True, False])
def test_objects_in_a_bin_file_are_refused_and_not_run(content: Any, by_torch: bool, tmp_path: Path) -> None:
    if by_torch:
        torch.save(content, tmp_path / "a.bin")
    else:
        (tmp_path / "a.bin").write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
    refused(tmp_path, r"its a\.bin(: \"x\" is a int| holds a (list|bytes)| is damaged, or holds more than tensors)")


def test_what_is_no_floating_point_tensor_is_refused(tmp_path: Path) -> None:
    for value in (torch.ones(2, dtype=torch.int8), torch.ones(2, dtype=torch.complex64), torch.ones(2).to_sparse()):
        torch.save({"x": value}, tmp_path / "a.bin")
        refused(tmp_path, r'its a\.bin: "x" is (int8|complex64|sparse_coo); adapters are float32, float16')


def test_a_missing_file_a_folder_and_a_loop_are_named(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", r"no a\.safetensors there; such an adapter has config\.json and a\.safetensors")
    (tmp_path / "a.safetensors").symlink_to(tmp_path / "a.safetensors")
    refused(tmp_path, r"no a\.safetensors there")
    (tmp_path / "a.safetensors").unlink()
    (tmp_path / "a.safetensors").mkdir()
    refused(tmp_path, r"its a\.safetensors is a folder, not a file")


@pytest.mark.parametrize("content", [b"", b"[1]", b"8", b"{", b'{"a": "\xff"}', b"[" * 100_000, b"1" * 5000])
def test_json_that_is_no_object_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"^{tmp_path}: its x\.json is damaged \(.*\)$"):
        read_json(tmp_path, "x.json", ("x.json",))


def test_a_value_is_shown_in_one_short_line() -> None:
    assert shown("a\nb\x1b") == r'"a\nb\u001b"' and shown({"a": [None]}) == '{"a": [null]}'
    assert len(shown("x" * 100)) == 60 and len(shown("x" * 1000, 160)) == 160
