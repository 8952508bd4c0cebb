"""A GGUF file -> a folder with config.json, fp32 weights as safetensors and the tokenizer, made once and then kept.

transformers reads the file. A quantised number is a scale of 16 bits times a whole number, plus an offset, so only fp32
holds it exactly. The folder lies in the store's cache under the fingerprint of the file; it can be deleted at any time.
"""

import contextlib
import fcntl
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from loralab.backbones.budget import within
from loralab.backbones.checkpoint import inspect
from loralab.backbones.gguf_header import missing_packages, read_header
from loralab.backbones.source import Source
from loralab.backbones.weights import quiet
from loralab.compat.transformers import dequantised
from loralab.errors import UserError
from loralab.files import atomic_directory
from loralab.text import reason

__all__ = ["dequantise"]


def dequantise(source: Source) -> None:
    """Makes `source.directory` from the GGUF file, unless it is there and whole; does nothing for any other source.

    One process makes it, others wait for it. Raises UserError where a package is missing, where transformers cannot
    read the file, or not all of it, and where the folder cannot be written.
    """
    if source.gguf is None or _is_whole(source):
        return
    assert source.directory is not None
    if missing := missing_packages():
        raise UserError(f"{source.key}: transformers needs more packages for {source.gguf}; run: pip install {missing}")
    try:
        with _locked(source.directory.with_suffix(".lock")):
            if not _is_whole(source):  # another process may have made it meanwhile
                shutil.rmtree(source.directory, ignore_errors=True)
                with atomic_directory(source.directory) as temporary, quiet(), _without_bars():
                    _convert(source, source.gguf, temporary)
    except OSError as error:
        if not _is_whole(source):  # else another process has made it, where the file system has no locks
            raise UserError(
                f"store: {source.directory} cannot be written ({error.strerror or reason(error)}); "
                f"{source.gguf.name} is dequantised there: make room, or name a folder that can be written to"
            ) from error


def _is_whole(source: Source) -> bool:
    assert source.directory is not None
    try:
        inspect(source.directory, source.key)
    except UserError:
        return False
    return True


def _convert(source: Source, file: Path, directory: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    header = read_header(file, source.key)
    where: Any = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
    with _reading(source, "the tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **where)
        for role, token in header.special.items():  # transformers 5.15 has those of another model
            setattr(tokenizer, f"{role}_token", tokenizer.convert_ids_to_tokens(token))
    with _reading(source, "the model"), within(4 * header.numbers, where=f"{source.key}: {file}"):
        model, info = AutoModelForCausalLM.from_pretrained(
            file.parent, dtype=torch.float32, output_loading_info=True, **where
        )
    if info["missing_keys"]:
        raise UserError(
            f"{source.key}: {file} lacks {len(info['missing_keys'])} tensors of a {source.family!r} model: "
            f"{min(info['missing_keys'])}, ..."
        )
    read = sum(parameter.numel() for parameter in model.parameters())
    if read != header.numbers:
        raise UserError(
            f"{source.key}: {file} holds {header.numbers:,} numbers, and transformers' {source.family!r} model has "
            f"{read:,}, so it would compute something else; give the model as a folder with config.json and "
            "model.safetensors"
        )
    dequantised(model).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


@contextlib.contextmanager
def _reading(source: Source, what: str) -> Iterator[None]:
    """Inside, an error of a library becomes one line that names the file."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # numpy, gguf, tokenizers and transformers raise any class for a damaged file
        raise UserError(
            f"{source.key}: {source.gguf}: {what} cannot be read: {reason(error)}; is the file whole?"
        ) from error


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """Inside, progress bars are not shown; that of transformers' GGUF reader has no switch."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Inside, no other process is here with the same file; the lock dies with its process."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as handle:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
