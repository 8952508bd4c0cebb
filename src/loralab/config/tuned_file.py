"""tune.yaml, which `loralab tune` writes: its overrides come before those of the command line (tuned=FILE)."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from loralab.config.checks import brief
from loralab.errors import UserError, explain_os_error
from loralab.files import read_regular

__all__ = ["FILE", "read_tuned", "with_tuned"]

FILE = "tune.yaml"


def with_tuned(arguments: Sequence[str]) -> list[str]:
    """The arguments with the overrides of tuned=FILE before the others; those of keys that are given here are left out.

    Raises UserError for a file that `loralab tune` did not write, and for more than one.
    """
    files = [text.partition("=")[2] for text in arguments if _key(text) == "tuned"]
    if not files:
        return list(arguments)
    if len(files) > 1:
        raise UserError(f"tuned: got {' and '.join(files)}; it takes one file")
    rest = [text for text in arguments if _key(text) != "tuned"]
    given = {_key(text) for text in rest}
    path = Path(files[0]).expanduser()
    overrides = read_tuned(path / FILE if path.is_dir() else path)["overrides"]
    found = [text for text in overrides if _key(text) not in given]
    flags = [text for text in rest if text.startswith("-")]
    return [*flags, *found, *(text for text in rest if not text.startswith("-"))]


def read_tuned(file: Path) -> dict[str, Any]:
    """The values of a tune.yaml; raises UserError for any other file, in one line."""
    try:
        values: Any = yaml.safe_load(read_regular(file))
    except FileNotFoundError as error:
        raise UserError(f"tuned: there is no {file}; `loralab tune` prints the path of its {FILE}") from error
    except OSError as error:
        raise UserError(f"tuned: {explain_os_error(error) or error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"tuned: {file} is no YAML; name the {FILE} that `loralab tune` wrote") from error
    found: dict[str, Any] = values if isinstance(values, dict) and values.get("tune") == 1 else {}
    overrides = found.get("overrides")
    if not isinstance(overrides, list) or not all(isinstance(text, str) for text in overrides):
        raise UserError(f"tuned: {file} was not written by `loralab tune`; name a {FILE} in a store's tune/")
    for text in overrides:
        if "=" not in text or re.split(r"[./@]", _key(text))[0] in ("hydra", "tuned", "") or text.startswith("-"):
            raise UserError(f"tuned: {file} has the override {brief(text)}, which is no setting of a run; tune again")
    return found


def _key(text: str) -> str:
    return text.partition("=")[0].lstrip("+~")
