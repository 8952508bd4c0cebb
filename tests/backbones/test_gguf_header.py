"""The header of a GGUF file: family, width and size, and a one-line error for what cannot be read."""

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loralab.backbones.families import FAMILIES, IN_GGUF
from loralab.backbones.gguf_header import Header, read_header
from loralab.errors import UserError
from tests.gguf_files import WIDTH, tiny_model, write_gguf


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def refusal(file: Path) -> str:
    with pytest.raises(UserError) as info:
        read_header(file, "model.path")
    message = str(info.value)
    assert message.startswith(f"model.path: {file} ") or message.startswith(f"model.path: {file}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("family", sorted(IN_GGUF))
def test_the_header_has_family_width_and_the_number_of_numbers(family: str, tmp_path: Path) -> None:
    numbers = sum(parameter.numel() for parameter in tiny_model(family).parameters())
    assert read_header(write_gguf(tmp_path / "m.gguf", family), "k") == Header(
        family, WIDTH, numbers, {"bos": 1, "eos": 2, "pad": 2}
    )


def test_families_in_gguf_have_roles_and_transformers_reads_them() -> None:
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    assert set(FAMILIES) >= IN_GGUF
    assert set(GGUF_SUPPORTED_ARCHITECTURES) >= IN_GGUF


def test_reading_imports_no_library(whole: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from loralab.backbones.gguf_header import read_header
read_header(Path({str(whole)!r}), "k")
assert not {{"torch", "transformers", "numpy", "gguf"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_file_that_is_cut_off_anywhere_in_its_header_is_one_line(whole: Path, tmp_path: Path) -> None:
    content = whole.read_bytes()
    header = content.index(b"token_embd.weight")
    lengths = [*range(0, 40), *range(40, header, 997), header + 30, len(content) // 8]
    for length in lengths:
        cut = tmp_path / f"{length}.gguf"
        cut.write_bytes(content[:length])
        message = refusal(cut)
        assert "copy it again" in message or "is not a GGUF file" in message, length


def test_a_damaged_header_never_ends_in_a_traceback(whole: Path, tmp_path: Path) -> None:
    content = whole.read_bytes()
    generator = np.random.default_rng(0)
    damaged = tmp_path / "damaged.gguf"
    refused = []
    for _ in range(100):
        changed = bytearray(content)
        at = int(generator.integers(0, 700))
        changed[at : at + 4] = generator.bytes(4)
        damaged.write_bytes(bytes(changed))
        try:
            read_header(damaged, "model.path")
        except UserError as error:
            refused.append(str(error))
    assert len(refused) > 20 and not any("\n" in message for message in refused)


def test_a_long_list_costs_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    setting = struct.pack("<Q1sI", 1, b"a", 9) + struct.pack("<IQ", 6, 2**60)
    file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + setting)
    assert "cut off or damaged" in refusal(file)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"architecture": "mamba"}, "of the architecture 'mamba'; GGUF files of llama, qwen2, qwen3 are read"),
        ({"tokenizer": None}, "holds no tokenizer"),
        ({"tokenizer": "rwkv"}, "a tokenizer of the kind 'rwkv' (tokenizer.ggml.model); gpt2 and llama are read"),
        ({"settings": {"split.count": 3}}, "one of 3 parts; join them: llama-gguf-split --merge"),
        ({"settings": {"llama.rope.scaling.type": "yarn"}}, "scales its rotary positions"),
        ({"settings": {"general.alignment": "wide"}}, "is cut off or damaged"),
        ({"settings": {"split.count": "three"}}, "one of three parts"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_fix(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    assert said in refusal(write_gguf(tmp_path / "m.gguf", **given))


@pytest.mark.parametrize("content", [b"", b"GG", b"version https://git-lfs.github.com/spec/v1\n", b"PK\x03\x04" * 99])
def test_a_file_of_another_kind_is_no_gguf_file(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(content)
    assert "is not a GGUF file" in refusal(file)


def test_a_version_that_is_not_known_is_named(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF" + struct.pack("<IQQ", 1, 0, 0))
    assert "GGUF version 1, and 2 and 3 are read" in refusal(file)


def test_a_file_that_is_replaced_is_read_again(whole: Path, tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(whole.read_bytes())
    assert read_header(file, "k").family == "llama"
    write_gguf(file, "qwen2")
    assert read_header(file, "k").family == "qwen2"


def test_no_such_file_is_one_line(tmp_path: Path) -> None:
    assert "cannot be read: No such file or directory" in refusal(tmp_path / "none.gguf")
