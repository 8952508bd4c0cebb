"""More than 400 damaged or unusual folders of LoRA adapters in PEFT's format, each a change of a good one."""

import json
import os
import pickle
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

__all__ = ["CASES"]

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
BIN = "adapter_model.bin"
Change = Callable[[Path], object]
Tensors = dict[str, Any]

FIELDS = (
    *("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "target_modules", "bias"),
    *("modules_to_save", "lora_dropout", "init_lora_weights", "exclude_modules", "layers_to_transform"),
    *("layers_pattern", "peft_type", "task_type", "base_model_name_or_path", "fan_in_fan_out"),
)
VALUES: dict[str, str] = {
    "null": "null",
    "minus one": "-1",
    "zero": "0",
    "huge": "1" + "0" * 30,
    "infinite": "1e400",
    "not a number": "NaN",
    "digit": '"4"',
    "long": json.dumps("x" * 10_000),
    "empty list": "[]",
    "numbers": "[1]",
    "names": '["query"]',
    "nested": '{"query": {"value": 1}}',
    "expression": '{"(a+)+$": 4}',
    "true": "true",
}


def _field(field: str, text: str) -> Change:
    def change(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        config[field] = "HERE"
        (folder / CONFIG).write_text(json.dumps(config).replace('"HERE"', text))

    return change


def _without(field: str) -> Change:
    def change(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        config.pop(field, None)
        (folder / CONFIG).write_text(json.dumps(config))

    return change


def _bytes(name: str, change: Callable[[bytes], bytes]) -> Change:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes())) and None


def _content(name: str, content: bytes) -> Change:
    """The file alone: what it stood for is gone."""

    def change(folder: Path) -> None:
        for other in (WEIGHTS, BIN) if name == BIN else (name,):
            (folder / other).unlink(missing_ok=True)
        (folder / name).write_bytes(content)

    return change


def _instead(name: str, make: Callable[[Path], Any]) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return change


def _tensors(change: Callable[[Tensors], Any], to: str = WEIGHTS) -> Change:
    """Changes the tensors by name; in place where it returns None."""

    def changed(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        new = change(tensors)
        tensors = tensors if new is None else new
        (folder / WEIGHTS).unlink()
        if to == WEIGHTS:
            save_file({key: value.contiguous() for key, value in tensors.items()}, folder / WEIGHTS)
        else:
            torch.save(tensors, folder / BIN)

    return changed


def _each(part: str, change: Callable[[Tensor], Tensor]) -> Change:
    return _tensors(lambda tensors: {key: change(t) if part in key else t for key, t in tensors.items()})


def _one(part: str, change: Callable[[Tensor], Tensor]) -> Change:
    def changed(tensors: Tensors) -> None:
        key = next(key for key in tensors if part in key)
        tensors[key] = change(tensors[key])

    return _tensors(changed)


def _renamed(old: str, new: str) -> Change:
    return _tensors(lambda tensors: {key.replace(old, new): t for key, t in tensors.items()})


def _less(part: str, count: int) -> Change:
    def change(tensors: Tensors) -> None:
        for key in [key for key in tensors if part in key][:count]:
            del tensors[key]

    return _tensors(change)


def _more(key: str, value: Tensor) -> Change:
    return _tensors(lambda tensors: tensors | {key: value})


def _cut(eighths: int, content: bytes) -> bytes:
    return content[: len(content) * eighths // 8]


def _cast(dtype: torch.dtype, tensor: Tensor) -> Tensor:
    return tensor.to(dtype)


def _flipped(seed: int, content: bytes) -> bytes:
    """One bit of the first 2 kB is another: the header of the tensors, or the config."""
    draw = random.Random(seed)
    at = draw.randrange(min(len(content), 2000))
    return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]


class Marker:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch unpickled",)


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _files() -> Iterator[tuple[str, Change]]:
    deep = b'{"peft_type": "LORA", "r": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    texts = {
        "empty": b"",
        "a list": b'["LORA"]',
        "a number": b"8",
        "null": b"null",
        "an empty object": b"{}",
        "deep": deep,
        "not UTF-8": b'{"peft_type": "LORA", "x": "\xff"}',
        "UTF-16": '{"peft_type": "LORA"}'.encode("utf-16"),
        "many digits": b'{"peft_type": "LORA", "r": ' + b"1" * 5000 + b"}",
        "zeros": b"\0" * 100,
    }
    yield from ((f"config: {name}", _content(CONFIG, text)) for name, text in texts.items())
    yield "config: a byte order mark", _bytes(CONFIG, lambda content: b"\xef\xbb\xbf" + content)
    yield "config: an unknown field", _field("tomorrow", "0.5")
    yield "config: a long unknown field", _field("x" * 5000, "1")
    yield "config: a field of two lines", _field("a\\nb", "1")
    for name in (CONFIG, WEIGHTS):
        yield f"{name}: absent", _instead(name, lambda _path: None)
        yield f"{name}: a folder", _instead(name, Path.mkdir)
        yield f"{name}: a loop of links", _instead(name, _loop)
        yield f"{name}: a broken link", _instead(name, lambda path: path.symlink_to("nowhere"))
        yield f"{name}: a pipe", _instead(name, os.mkfifo)
        for part in range(1, 8):
            yield f"{name}: {part} of 8", _bytes(name, partial(_cut, part))
        for seed in range(8):
            yield f"{name}: a flipped bit {seed}", _bytes(name, partial(_flipped, seed))
    yield "weights: text", _content(WEIGHTS, b"these are the weights\n")
    yield "weights: a long header", _content(WEIGHTS, b"\xff" * 64)
    yield "weights: longer", _bytes(WEIGHTS, lambda content: content + b"x")
    yield "bin: text", _content(BIN, b"these are the weights\n")
    yield "bin: empty", _content(BIN, b"")
    yield "bin: a pickle that runs", _content(BIN, pickle.dumps(Marker()))
    yield "bin: an old pickle", _content(BIN, pickle.dumps({"a": [1, 2]}, protocol=0))


def _contents() -> Iterator[tuple[str, Change]]:
    a, b, head = "lora_A", "lora_B", "classifier"
    yield "bin: tensors", _tensors(dict, BIN)
    yield "bin: a list", _tensors(lambda tensors: list(tensors.values()), BIN)
    yield "bin: nested", _tensors(lambda tensors: {"state": tensors}, BIN)
    yield "bin: a number", _tensors(lambda tensors: tensors | {"epoch": 3}, BIN)
    yield "bin: sparse", _tensors(lambda tensors: {key: t.to_sparse() for key, t in tensors.items()}, BIN)
    yield "bin: an object", _tensors(lambda tensors: tensors | {"x": Marker()}, BIN)
    for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool, torch.complex64):
        yield f"A: {dtype}", _each(a, partial(_cast, dtype))
        yield f"head: {dtype}", _each(head, partial(_cast, dtype))
    for part in (a, b, head):
        for count in (1, 2, 99):
            yield f"{part}: {count} less", _less(part, count)
        yield f"{part}: transposed", _each(part, lambda t: t.T if t.ndim == 2 else t)
        yield f"{part}: one row more", _one(part, lambda t: torch.cat([t, t[:1]]))
        yield f"{part}: one row less", _one(part, lambda t: t[1:])
        yield f"{part}: a row of rows", _one(part, lambda t: t[None])
        yield f"{part}: flat", _one(part, lambda t: t.flatten())
        yield f"{part}: a scalar", _one(part, lambda t: t.flatten()[0])
        yield f"{part}: one row", _one(part, lambda t: t[:1])
        yield f"{part}: empty", _one(part, lambda t: t[:0])
        yield f"{part}: no columns", _one(part, lambda t: t[..., :0])
        yield f"{part}: not finite", _one(part, lambda t: t * float("nan"))
    yield "rank 0", _tensors(lambda ts: {k: t[:0] if a in k else t[:, :0] if b in k else t for k, t in ts.items()})
    yield "unequal ranks", _each(a, lambda t: t[:-1])
    yield "lower rank", _tensors(lambda ts: {k: t[:2] if a in k else t[:, :2] if b in k else t for k, t in ts.items()})
    for old, new in (
        *(("base_model.model.", ""), ("base_model.model.", "model."), ("bert.", "roberta."), ("layer.1.", "layer.7.")),
        *(("lora_A", "lora_E"), ("lora_A.weight", "lora_A.default.weight"), ("lora_A.weight", "lora_A")),
        *(
            ("query", "keys"),
            ("query", "output"),
            ("classifier", "score"),
            ("classifier.", "classifier.original_module."),
        ),
        *(
            ("classifier.", "classifier.modules_to_save."),
            ("lora_B.weight", "lora_embedding_B"),
            ("value", "LayerNorm"),
        ),
    ):
        yield f"{old} is {new or 'gone'}", _renamed(old, new)
    layer = "base_model.model.bert.encoder.layer.0."
    for key in (
        *("lora_magnitude_vector", "lora_B.bias", "lora_embedding_A", "base_layer.weight", "base_layer.bias", "ia3_l"),
    ):
        yield f"and {key}", _more(f"{layer}attention.self.query.{key}", torch.ones(32, 32))
    yield "and a key of DoRA", _more(f"{layer}attention.self.query.lora_magnitude_vector", torch.ones(32))
    yield "and a bias", _more(f"{layer}attention.self.key.bias", torch.ones(32))
    yield "and a short bias", _more(f"{layer}attention.self.key.bias", torch.ones(1))
    yield "and a weight", _more(f"{layer}attention.self.key.weight", torch.ones(32, 32))
    yield "and a strange key", _more("x", torch.ones(1))
    yield "and a long key", _more("base_model.model." + "x." * 5000, torch.ones(1))
    yield "and a key of two lines", _more("base_model.model.a\nb", torch.ones(1))


CASES: dict[str, Change] = {
    **{f"{field} is {name}": _field(field, text) for field in FIELDS for name, text in VALUES.items()},
    **{f"no {field}": _without(field) for field in FIELDS},
    **dict(_files()),
    **dict(_contents()),
}
