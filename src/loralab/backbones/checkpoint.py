"""Checks that a checkpoint directory has a config, weights and a tokenizer, without torch.

Each defect raises a one-line UserError that begins with the config key of the directory. The hub module
uses the same rules to choose the files to download.
"""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loralab.backbones.families import WIDTHS
from loralab.errors import UserError

__all__ = ["Checkpoint", "index_of", "inspect", "needed_files", "read_json", "shard_names", "width_of"]

# In transformers' order of preference.
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spm.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
MOST_LAYERS, MOST_LABELS = 10_000, 1_000_000
LONGEST_HEADER = 100_000_000  # bytes; the format's own limit
_TOKENIZER_EXTRAS = ("merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_PARTS = ("text_config", "decoder", "encoder")  # configs inside a config: of Gemma 3, of T5Gemma


@dataclass(frozen=True)
class Checkpoint:
    """A directory that passed the checks: its parsed config.json and the files that determine the backbone."""

    directory: Path
    config: dict[str, Any]
    files: tuple[Path, ...]
    safetensors: bool


def inspect(directory: Path, key: str) -> Checkpoint:
    """The checkpoint in `directory`; raises UserError (prefixed with `key`) that names what is missing or broken."""
    try:
        return _inspect(directory, key)
    except OSError as error:  # no permission, a name too long, a loop of links, a broken disk
        raise UserError(f"{key}: {directory} cannot be read: {error.strerror or type(error).__name__}") from error


def _inspect(directory: Path, key: str) -> Checkpoint:
    if not directory.exists():
        raise UserError(f"{key}: no such directory: {directory}")
    if not directory.is_dir():
        raise UserError(f"{key}: {directory} is a file; give the directory that holds config.json and the weights")
    present = {path.name for path in directory.iterdir() if path.is_file()}
    if "adapter_config.json" in present:
        raise UserError(
            f"{key}: {directory} holds an adapter (adapter_config.json); give a whole checkpoint, "
            "e.g. one written by `loralab export RUN --to DIR --merged`"
        )
    if "config.json" not in present:
        raise UserError(f"{key}: {directory} has no config.json, so it is not a transformers checkpoint")
    config = _read_config(directory / "config.json", key)
    names = needed_files(present)
    if not any(name in _WEIGHTS for name in names):
        raise UserError(f"{key}: {directory} has no weights (model.safetensors or pytorch_model.bin, or their index)")
    index = index_of(names)
    if index is not None:
        shards = shard_names(directory / index, key)
        missing = [name for name in shards if name not in present]
        if missing:
            raise UserError(f"{key}: {directory} lacks {len(missing)} of {len(shards)} weight files: {missing[0]}, ...")
        names = (*names, *shards)
    if not any(name in _VOCABULARIES for name in names):
        raise UserError(
            f"{key}: {directory} has no tokenizer files (tokenizer.json, vocab.txt, vocab.json, spm.model, ...); "
            "save the tokenizer beside the model"
        )
    files = tuple(directory / name for name in sorted(names))
    for path in files:
        if path.suffix == ".safetensors":
            _check_safetensors(path, key)
    return Checkpoint(directory, config, files, any(name.startswith("model.safetensors") for name in names))


def needed_files(present: Collection[str]) -> tuple[str, ...]:
    """The files to use among `present`: config, tokenizer, one set of weights (safetensors preferred; no shards)."""
    weights = next((name for name in _WEIGHTS if name in present), None)
    wanted = ["config.json", *_VOCABULARIES, *_TOKENIZER_EXTRAS, *([weights] if weights else [])]
    return tuple(name for name in wanted if name in present)


def index_of(names: Collection[str]) -> str | None:
    """The name of the index among `names`, if the weights are sharded."""
    return next((name for name in names if name.endswith(".index.json")), None)


def width_of(config: dict[str, Any], key: str, directory: Path) -> int:
    """The model's width: hidden_size, or the family's key for it; also of the part that reads text, if it has parts."""
    parts = [config, *(config[part] for part in _PARTS if isinstance(config.get(part), dict))]
    width = next((part[name] for part in parts for name in WIDTHS if name in part), None)
    if not isinstance(width, int):
        raise UserError(
            f"{key}: {directory}: a {config['model_type']!r} model has no single width "
            f"({', '.join(WIDTHS)}), so it is not of a supported family"
        )
    return width


def read_json(path: Path, key: str) -> dict[str, Any]:
    """The JSON object in `path`; raises a one-line UserError if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{key}: {path} is not readable JSON: {str(error).splitlines()[0][:300]}") from error
    if not isinstance(content, dict):
        raise UserError(f"{key}: {path} holds {type(content).__name__}, not an object")
    return content


def shard_names(index: Path, key: str) -> tuple[str, ...]:
    """The weight files that an index lists, which lie beside it."""
    content = read_json(index, key)
    weight_map = content.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{key}: {index} has no weight_map")
    if not isinstance(content.get("metadata"), dict):
        raise UserError(f'{key}: {index} has no metadata, which transformers needs; add "metadata": {{}}')
    if not all(isinstance(name, str) and name == Path(name).name for name in weight_map.values()):
        raise UserError(f"{key}: {index}: its weight_map must give the name of a file beside it for each tensor")
    return tuple(sorted(set(weight_map.values())))


def _read_config(path: Path, key: str) -> dict[str, Any]:
    config = read_json(path, key)
    if not isinstance(config.get("model_type"), str):
        raise UserError(f'{key}: {path} has no model_type, so its family is unknown; add e.g. "model_type": "bert"')
    if "quantization_config" in config:
        raise UserError(f"{key}: {path.parent} holds quantised weights; give an unquantised checkpoint")
    for name, value in _numbers(config):
        most = MOST_LABELS if name == "num_labels" else MOST_LAYERS
        if value > most:
            raise UserError(f"{key}: {path}: {name}: got {value}; at most {most:,}")
    return config


def _numbers(values: Any, name: str = "") -> Iterator[tuple[str, int]]:
    """The whole numbers for which transformers makes a list as long, before it builds a model; also nested ones."""
    if isinstance(values, dict):
        for key, value in values.items():
            yield from _numbers(value, key)
    elif isinstance(values, list) and name == "attention_types":
        for value in values:
            yield from _numbers(value, name)
    elif type(values) is int and ("layer" in name or name in ("num_labels", "attention_types")):
        yield name, values


def _check_safetensors(path: Path, key: str) -> None:
    """Raises unless the file is exactly as long as its header says (the usual defect is a truncated copy)."""
    size = path.stat().st_size
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= size - 8:
                raise ValueError(f"its header would be {length:,} bytes")
            if length > LONGEST_HEADER:
                raise ValueError(f"its header would be {length:,} bytes, and at most {LONGEST_HEADER:,} are allowed")
            header = json.loads(stream.read(length))
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        text = (str(error) or type(error).__name__).splitlines()[0][:300]
        raise UserError(f"{key}: {path} is not a safetensors file ({size:,} bytes): {text}") from error
    if 8 + length + end != size:
        raise UserError(
            f"{key}: {path} is cut off or damaged: {size:,} bytes, its header says {8 + length + end:,}; copy it again"
        )
