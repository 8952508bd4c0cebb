"""Errors of foreign readers: one line with the key, the folder and the cause; real errors of others pass."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from loralab.backbones.reading import encoding, reading
from loralab.backbones.source import Source, locate
from loralab.errors import UserError


class PanicException(BaseException):
    """As a library in Rust raises it."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("first\nsecond"), "first"),
        (KeyError("metadata"), "KeyError: 'metadata'"),
        (AssertionError(), "AssertionError"),
        (PanicException("index out of bounds"), "PanicException: index out of bounds"),
        (Exception("x" * 9999), f"{'x' * 148}...{'x' * 149}"),
    ],
)
def test_an_error_of_a_library_is_one_line(error: BaseException, said: str, checkpoint: Callable[..., Source]) -> None:
    source = checkpoint("bert")
    with pytest.raises(UserError) as info, reading(source, "the config cannot be read"):
        raise error
    assert str(info.value) == f"model.path: {source.directory}: the config cannot be read: {said}"
    assert info.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), torch.OutOfMemoryError("full"), UserError("mine"), SystemExit(2)]
)
def test_what_is_no_defect_of_the_files_passes(error: BaseException, checkpoint: Callable[..., Source]) -> None:
    with pytest.raises(type(error)) as info, reading(checkpoint("bert"), "the config cannot be read"):
        raise error
    assert info.value is error


def test_random_weights_have_no_files_to_blame() -> None:
    tiny = locate("tiny", package=None, hub=None, revision=None, path=None, cache=Path("unused"))
    with pytest.raises(KeyError), reading(tiny, "the config cannot be read"):
        raise KeyError("ours")


def test_what_tokenizers_raises_for_a_text_is_one_line_and_nothing_else_is(checkpoint: Callable[..., Source]) -> None:
    source = checkpoint("bert")
    for error in (Exception("WordLevel error"), PanicException("no entry"), OverflowError("too large")):
        with pytest.raises(UserError, match=r"^model\.path: .* cannot encode the task's texts: .+"), encoding(source):
            raise error
    for real in (KeyError("x"), OSError("full"), KeyboardInterrupt()):
        with pytest.raises(type(real)), encoding(source):
            raise real
