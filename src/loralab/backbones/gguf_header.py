"""The header of a GGUF file: its settings and the sizes of its tensors, in milliseconds and without any library.

llama.cpp's format for one file with weights, often quantised, and a tokenizer. The file begins with a table of settings
and a table of tensors; https://github.com/ggml-org/ggml/blob/master/docs/gguf.md describes them.
"""

import importlib.util
import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loralab.backbones.families import IN_GGUF
from loralab.errors import UserError

__all__ = ["Header", "missing_packages", "read_header"]

_MAGIC, _VERSIONS = b"GGUF", (2, 3)
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
_ALIGNMENT = 32  # of the tensors, where the file names none
_MOST_DIMENSIONS = 4
_TOKENIZERS = ("gpt2", "llama")  # llama.cpp's names of byte-level BPE and of SentencePiece
_SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
_READERS = ("gguf", "accelerate")  # which transformers needs for a GGUF file


@dataclass(frozen=True)
class Header:
    """What is known of a model without its weights.

    family: its model type, which llama.cpp calls the architecture; numbers: of all tensors together;
    special: the ids of the tokens bos, eos, unk and pad, of those that the file names.
    """

    family: str
    width: int
    numbers: int
    special: Mapping[str, int]


def read_header(file: Path, key: str) -> Header:
    """The header of `file`; raises a one-line UserError (prefixed with `key`) for what loralab cannot read.

    That is: no GGUF file, one that is cut off, an architecture that transformers does not read, a file without a
    tokenizer, and one of several parts.
    """
    try:
        return _read(file, key)
    except OSError as error:
        raise UserError(f"{key}: {file} cannot be read: {error.strerror or type(error).__name__}") from error


def _read(file: Path, key: str) -> Header:
    with file.open("rb") as stream:
        start = stream.read(len(_MAGIC))
        if start != _MAGIC:
            raise UserError(f"{key}: {file} is not a GGUF file: it begins with {start!r}, not with {_MAGIC!r}")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                settings, tensors = _tables(_Cursor(data, len(_MAGIC)), len(data))
            except (struct.error, TypeError, ValueError, OverflowError, MemoryError) as error:
                raise UserError(
                    f"{key}: {file} is cut off or damaged ({len(data):,} bytes: {str(error) or type(error).__name__}); "
                    "copy it again"
                ) from error
    family = settings.get("general.architecture")
    if family not in IN_GGUF:
        raise UserError(
            f"{key}: {file} holds a model of the architecture {family!r}; GGUF files of {', '.join(sorted(IN_GGUF))} "
            "are read; give the model as a folder with config.json and model.safetensors"
        )
    width = settings.get(f"{family}.embedding_length")
    if not isinstance(width, int) or width < 1:
        raise UserError(f"{key}: {file}: {family}.embedding_length, the width: got {width!r}; it must be at least 1")
    if not settings.get("tokenizer.ggml.tokens"):
        raise UserError(f"{key}: {file} holds no tokenizer (tokenizer.ggml.tokens); give one that was made with it")
    kind = settings.get("tokenizer.ggml.model")
    if kind not in _TOKENIZERS:
        raise UserError(
            f"{key}: {file} has a tokenizer of the kind {kind!r} (tokenizer.ggml.model); {' and '.join(_TOKENIZERS)} "
            "are read; give the model as a folder with config.json and model.safetensors"
        )
    if settings.get("split.count", 1) not in (0, 1):  # a file of one part need not say so
        raise UserError(f"{key}: {file} is one of {settings['split.count']} parts; join them: llama-gguf-split --merge")
    scaling = settings.get(f"{family}.rope.scaling.type", "none")  # the format's own default
    if scaling != "none":
        raise UserError(
            f"{key}: {file} scales its rotary positions ({family}.rope.scaling.type: {scaling}), which transformers "
            "does not read from a GGUF file; give the model as a folder with config.json and model.safetensors"
        )
    ids = {role: settings.get(f"tokenizer.ggml.{name}_token_id") for role, name in _SPECIAL.items()}
    return Header(family, width, sum(tensors), {role: i for role, i in ids.items() if isinstance(i, int)})


def _tables(cursor: "_Cursor", size: int) -> tuple[dict[str, Any], list[int]]:
    """The settings (of a list only its length), and the number of numbers of each tensor."""
    version = cursor.number("I")
    if version not in _VERSIONS:
        raise ValueError(f"GGUF version {version}, and {' and '.join(map(str, _VERSIONS))} are read")
    count, pairs = cursor.number("Q"), cursor.number("Q")
    settings: dict[str, Any] = {}
    for _ in range(pairs):
        name = cursor.text()
        settings[name] = cursor.value(cursor.number("I"))
    tensors, last = [], 0
    for _ in range(count):
        name = cursor.text()
        dimensions = cursor.number("I")
        if dimensions > _MOST_DIMENSIONS:
            raise ValueError(f"{name} would have {dimensions} dimensions")
        tensors.append(math.prod(cursor.number("Q") for _ in range(dimensions)))
        cursor.number("I")
        last = max(last, cursor.number("Q"))
    step = settings.get("general.alignment", _ALIGNMENT)
    begin = math.ceil(cursor.at / max(step, 1)) * step
    if begin + last >= size:
        raise ValueError(f"its last tensor would begin at byte {begin + last:,}")
    return settings, tensors


def missing_packages() -> str:
    """The packages, with blanks between, that have to be installed before transformers reads a GGUF file."""
    return " ".join(name for name in _READERS if importlib.util.find_spec(name) is None)


class _Cursor:
    """Reads little-endian values one after another; struct.error beyond the end."""

    def __init__(self, data: mmap.mmap, at: int) -> None:
        self.data, self.at = data, at

    def number(self, kind: str) -> Any:
        (found,) = struct.unpack_from(f"<{kind}", self.data, self.at)
        self.at += struct.calcsize(f"<{kind}")
        return found

    def text(self) -> str:
        length = self.number("Q")
        found = self.data[self.at : self.at + length]
        if len(found) != length:
            raise ValueError(f"a text of {length:,} bytes goes beyond its end")
        self.at += length
        return found.decode("utf-8")

    def value(self, kind: int) -> Any:
        """A number or a text; of a list its length."""
        if kind == _TEXT:
            return self.text()
        if kind != _ARRAY:
            return self.number(_kind(kind))
        kind, length = self.number("I"), self.number("Q")
        if kind == _TEXT:
            self._skip_texts(length)
        else:
            self.at += length * struct.calcsize(f"<{_kind(kind)}")
        return length

    def _skip_texts(self, count: int) -> None:
        data, at, unpack = self.data, self.at, struct.Struct("<Q").unpack_from
        for _ in range(count):
            at += 8 + unpack(data, at)[0]
        self.at = at


def _kind(kind: int) -> str:
    if kind not in _NUMBERS:
        raise ValueError(f"a value of the unknown type {kind}")
    return _NUMBERS[kind]
