"""Damaged model folders, by name: each is a function that changes a healthy copy. The list is the same every time."""

import json
import os
import pickle
import random
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

__all__ = ["DAMAGES", "PWNED", "Damage"]

Damage = Callable[[Path], None]

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
SETTINGS = "tokenizer_config.json"
PWNED = "pwned"
ODD: tuple[Any, ...] = (None, True, -1, 0, 1, 7, 2.5, 10**9, 10**30, "", "x", [], [1], {}, {"a": 1})
KEYS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size",
    "max_position_embeddings", "hidden_act", "type_vocab_size", "layer_norm_eps", "model_type",
)  # fmt: skip


class Bomb:
    """Leaves a file where it is unpickled."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path(PWNED),))


def edit(file: str, changes: dict[str, Any], folder: Path) -> None:
    """Sets keys of a JSON file."""
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | changes))


def write(file: str, content: str | bytes, folder: Path) -> None:
    (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)


def remove(file: str, folder: Path) -> None:
    (folder / file).unlink()


def cut(file: str, share: float, folder: Path) -> None:
    whole = (folder / file).read_bytes()
    (folder / file).write_bytes(whole[: int(share * len(whole))])


def flip(file: str, seed: int, folder: Path) -> None:
    """Changes eight bytes, in the first 2 kB for even seeds."""
    content, draw = bytearray((folder / file).read_bytes()), random.Random(seed)
    for _ in range(8):
        content[draw.randrange(min(2000, len(content)) if seed % 2 == 0 else len(content))] ^= 1 << draw.randrange(8)
    (folder / file).write_bytes(content)


def header(folder: Path, change: Callable[[dict[str, Any], str], None]) -> None:
    """Changes the header of the weights and keeps their bytes."""
    raw = (folder / WEIGHTS).read_bytes()
    size = int.from_bytes(raw[:8], "little")
    entries = json.loads(raw[8 : 8 + size])
    change(entries, next(name for name in entries if name != "__metadata__"))
    text = json.dumps(entries).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + size :])


def entry(changes: dict[str, Any], folder: Path) -> None:
    def change(entries: dict[str, Any], name: str) -> None:
        entries[name] = entries[name] | changes

    header(folder, change)


def whole_entry(value: Any, folder: Path) -> None:
    def change(entries: dict[str, Any], name: str) -> None:
        entries[name] = value

    header(folder, change)


def as_bin(content: Any, folder: Path) -> None:
    """Replaces the weights by a .bin: text, bytes, or an object that torch saves (called with the real weights)."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    target = folder / "pytorch_model.bin"
    if isinstance(content, str | bytes):
        write(target.name, content, folder)
    else:
        torch.save(content(tensors), target)


def tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], folder: Path) -> None:
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})


def index(content: Any, folder: Path, *, keep: bool = True) -> None:
    """Replaces the weights by an index; `keep`: beside one shard with all of them."""
    names = list(load_file(folder / WEIGHTS))
    (folder / WEIGHTS).rename(folder / "a.safetensors")
    if not keep:
        (folder / "a.safetensors").unlink()
    write("model.safetensors.index.json", json.dumps(content(names)), folder)


def loop(file: str, folder: Path) -> None:
    (folder / file).unlink()
    (folder / file).symlink_to(folder / file)


def fifo(file: str, folder: Path) -> None:
    (folder / file).unlink()
    os.mkfifo(folder / file)


def directory(file: str, folder: Path) -> None:
    (folder / file).unlink()
    (folder / file).mkdir()


def in_tokenizer(path: tuple[str, ...], value: Any, folder: Path) -> None:
    """Sets a nested key of tokenizer.json."""
    content = json.loads((folder / TOKENIZER).read_text())
    at = content
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    (folder / TOKENIZER).write_text(json.dumps(content))


def first(tensors_of: dict[str, torch.Tensor], to: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, torch.Tensor]:
    name = next(name for name, tensor in tensors_of.items() if tensor.ndim == 2 and len(tensor) > 7)
    return tensors_of | {name: to(tensors_of[name])}


def _files() -> Iterator[tuple[str, Damage]]:
    for file in (CONFIG, WEIGHTS, TOKENIZER, SETTINGS):
        yield f"{file} removed", partial(remove, file)
        yield f"{file} empty", partial(write, file, "")
        yield f"{file} of zeros", partial(write, file, bytes(4096))
        yield f"{file} of text", partial(write, file, "hello")
        yield f"{file} a loop", partial(loop, file)
        yield f"{file} a pipe", partial(fifo, file)
        yield f"{file} a folder", partial(directory, file)
        yield from ((f"{file} cut to {share}", partial(cut, file, share)) for share in (0.01, 0.5, 0.999))
        yield from ((f"{file} flipped {seed}", partial(flip, file, seed)) for seed in range(8))
    for file in (CONFIG, TOKENIZER, SETTINGS):
        texts: dict[str, str | bytes] = {
            "null": "null", "a list": "[]", "a number": "7", "empty object": "{}",
            "deep": '{"a":' * 5000 + "1" + "}" * 5000,
            "a long number": '{"a": ' + "9" * 5000 + "}", "UTF-16": "{}".encode("utf-16"), "NaN": '{"a": NaN}',
        }  # fmt: skip
        yield from ((f"{file} {name}", partial(write, file, text)) for name, text in texts.items())


def _configs() -> Iterator[tuple[str, Damage]]:
    for key in KEYS:
        yield from ((f"config {key} {value!r}", partial(edit, CONFIG, {key: value})) for value in ODD[:12])
    settings: dict[str, Any] = {
        "return_dict": False, "output_attentions": True, "output_hidden_states": True, "chunk_size_feed_forward": 7,
        "is_decoder": True, "add_cross_attention": True, "is_encoder_decoder": True, "tie_word_embeddings": "x",
        "id2label": {"a": "b"}, "label2id": [1], "num_labels": -3, "pad_token_id": 10**6, "eos_token_id": [[1]],
        "dtype": "float99", "torch_dtype": 7, "hidden_dropout_prob": "x", "attention_probs_dropout_prob": 9,
        "attn_implementation": "evil/kernel", "_attn_implementation": "flash_attention_2", "architectures": [7],
        "auto_map": {"AutoConfig": "evil.Config", "AutoModelForSequenceClassification": "evil.Model"},
        "position_embedding_type": "x", "problem_type": "x", "pruned_heads": {"0": [0]}, "quantization_config": {},
        "transformers_version": "99", "torchscript": True, "rope_scaling": {"type": "x"}, "text_config": 3,
        "num_hidden_layers": 5000, "layer_types": ["x"], "initializer_range": float("nan"), "gguf": 1,
    }  # fmt: skip
    yield from (
        (f"config {key} is {value!r:.40}", partial(edit, CONFIG, {key: value})) for key, value in settings.items()
    )


def _weights() -> Iterator[tuple[str, Damage]]:
    wrong: dict[str, dict[str, Any]] = {
        "F99": {"dtype": "F99"}, "number": {"dtype": 7}, "half": {"dtype": "F16"}, "rows": {"shape": [10**9]},
        "long": {"shape": [2**40, 2**40]}, "negative": {"shape": [-1]}, "text": {"shape": "x"}, "none": {"shape": None},
        "offset": {"data_offsets": [-5, 10]}, "backwards": {"data_offsets": [10, 5]},
        "far": {"data_offsets": [0, 2**60]},
        "one": {"data_offsets": [0]}, "words": {"data_offsets": ["a", "b"]}, "overlap": {"data_offsets": [0, 4]},
    }  # fmt: skip
    yield from ((f"header {name}", partial(entry, changes)) for name, changes in wrong.items())
    entries: tuple[Any, ...] = (None, 7, [], {}, "x")
    yield from ((f"entry {value!r}", partial(whole_entry, value)) for value in entries)
    yield "header of 2^60 bytes", partial(write, WEIGHTS, struct.pack("<Q", 2**60) + b"{}")
    yield "no tensors", partial(tensors, lambda _: {"x": torch.zeros(1)})
    yield "integers", partial(tensors, lambda all_: {name: one.to(torch.int32) for name, one in all_.items()})
    yield "NaN", partial(tensors, lambda all_: first(all_, lambda one: one * float("nan")))
    yield "infinite", partial(tensors, lambda all_: first(all_, lambda one: one / 0))
    yield "transposed", partial(tensors, lambda all_: first(all_, lambda one: one[:7].T.contiguous()))
    yield "renamed", partial(tensors, lambda all_: {f"x.{name}": one for name, one in all_.items()})
    for name, content in {
        "text": "hello", "empty": "", "a pickle of a list": pickle.dumps([1]), "a bomb": pickle.dumps(Bomb()),
        "GGUF": b"GGUF" + bytes(64), "a zip": b"PK\x03\x04" + bytes(64),
    }.items():  # fmt: skip
        yield f"bin of {name}", partial(as_bin, content)
    makers: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
        "a list": lambda _: [1, 2], "numbers as keys": lambda _: {1: torch.ones(2)}, "nothing": lambda _: {},
        "text values": lambda all_: dict.fromkeys(all_, "x"), "a tensor": lambda _: torch.ones(2),
        "a bomb": lambda _: Bomb(),
        "nested": lambda all_: {"model": all_}, "whole": lambda all_: all_, "None": lambda _: None,
        "huge views": lambda all_: {name: torch.zeros(1).expand(10**9) for name in all_},
    }  # fmt: skip
    yield from ((f"bin with {name}", partial(as_bin, make)) for name, make in makers.items())
    indices: dict[str, Callable[[list[str]], Any]] = {
        "without metadata": lambda names: {"weight_map": dict.fromkeys(names, "a.safetensors")},
        "of lists": lambda names: {"metadata": {}, "weight_map": {name: ["a"] for name in names}},
        "elsewhere": lambda names: {"metadata": {}, "weight_map": dict.fromkeys(names, "../a.safetensors")},
        "of a lost shard": lambda names: {"metadata": {}, "weight_map": dict.fromkeys(names, "b.safetensors")},
        "of other names": lambda _: {"metadata": {}, "weight_map": {"x": "a.safetensors"}},
        "of the config": lambda names: {"metadata": {}, "weight_map": dict.fromkeys(names, CONFIG)},
        "without a map": lambda _: {"metadata": {}}, "of a list": lambda _: [],
        "with a list": lambda _: {"weight_map": []},
        "with bad metadata": lambda names: {"metadata": 3, "weight_map": dict.fromkeys(names, "a.safetensors")},
    }  # fmt: skip
    yield from ((f"index {name}", partial(index, make)) for name, make in indices.items())


def _tokenizers() -> Iterator[tuple[str, Damage]]:
    for key, value in {
        "model_max_length": "x", "pad_token": "<new>", "eos_token": 7, "tokenizer_class": "Evil", "padding_side": "up",
        "truncation_side": "up", "model_input_names": "x", "added_tokens_decoder": {"x": 1}, "extra_special_tokens": 3,
        "chat_template": 7, "auto_map": {"AutoTokenizer": ["evil.T", None]}, "unk_token": ["x"],
    }.items():  # fmt: skip
        yield f"tokenizer setting {key} {value!r:.30}", partial(edit, SETTINGS, {key: value})
    for path, value in {
        ("model",): {}, ("model", "type"): "Evil", ("model", "vocab"): {}, ("post_processor",): {"type": "x"},
        ("pre_tokenizer",): {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Removed", "invert": False},
        ("version",): 9, ("added_tokens",): [{"id": -1}], ("truncation",): 5, ("model", "unk_token"): "nosuch",
    }.items():  # fmt: skip
        yield f"tokenizer.json {'.'.join(path)} {value!r:.30}", partial(in_tokenizer, path, value)
    yield (
        "vocabulary with an id of 10^9",
        partial(in_tokenizer, ("model", "vocab"), {"</s>": 10**9, "<pad>": 1, "<s>": 0}),
    )
    yield "vocabulary of negative ids", partial(in_tokenizer, ("model", "vocab"), {"</s>": -1})
    yield "no pad and no eos", partial(edit, SETTINGS, {"pad_token": None, "eos_token": None})


def _every() -> dict[str, Damage]:
    found = [*_files(), *_configs(), *_weights(), *_tokenizers()]
    assert len({name for name, _ in found}) == len(found), "two damages have one name"
    return dict(found)


DAMAGES = _every()
