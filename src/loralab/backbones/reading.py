"""What is wrong with a checkpoint: errors of foreign libraries as one line, and findings about a model that loads."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from loralab.backbones.source import Source
from loralab.errors import UserError
from loralab.text import reason

__all__ = ["Finding", "encoding", "reading"]


@dataclass(frozen=True)
class Finding:
    """One line each: `note`, a warning; `unfit`, why the model must not be trained as it is."""

    note: str | None = None
    unfit: str | None = None


@contextlib.contextmanager
def reading(source: Source, failure: str) -> Iterator[None]:
    """Inside, an error of a library becomes `KEY: DIRECTORY: FAILURE: its first line`, if `source` is a directory.

    For calls that read or run a checkpoint's own files only. A source of random weights has no file that could be
    damaged, so its errors are raised unchanged.
    """
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # tokenizers, safetensors, pickle and transformers raise any class for a damaged file
        if source.directory is None:
            raise
        raise UserError(f"{source.key}: {source.directory}: {failure}: {reason(error)}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of a library in Rust; it is no Exception
            raise
        raise UserError(f"{source.key}: {source.directory}: {failure}: {reason(error)}") from error


@contextlib.contextmanager
def encoding(source: Source) -> Iterator[None]:
    """Inside, what the tokenizers library raises for a text becomes one line: a bare Exception, or a panic."""
    try:
        yield
    except BaseException as error:
        if type(error) is not Exception and type(error).__name__ not in ("PanicException", "OverflowError"):
            raise
        raise UserError(
            f"{source.key}: {source.origin}: its tokenizer cannot encode the task's texts: {reason(error)}"
        ) from error
