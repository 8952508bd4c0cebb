"""A stored config is read as it was written, or refused in one line that names file and key."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from loralab.config.keys import config_values
from loralab.config.stored import stored_config
from loralab.errors import UserError
from tests.small_runs import config

MISSING: Any = object()


def values() -> dict[str, Any]:
    found: dict[str, Any] = config_values(config(Path("somewhere"), "lora.rank_pattern={v:16}"))
    return found


def changed(key: str, value: Any) -> dict[str, Any]:
    found = copy.deepcopy(values())
    *nodes, name = key.split(".")
    inside = found
    for node in nodes:
        inside = inside[node]
    if value is MISSING:
        del inside[name]
    else:
        inside[name] = value
    return found


def written(directory: Path, content: Any) -> Path:
    file = directory / "config.yaml"
    file.write_bytes(content if isinstance(content, bytes) else yaml.safe_dump(content, sort_keys=False).encode())
    return file


@pytest.mark.parametrize(
    "text",
    [
        "x${HOME}y",
        "\\${",
        "\\\\${a}",
        "a: b # c",
        "'\"",
        " blanks ",
        "line\nline",
        "é",
        "1e5",
        "null",
        "\udc80",
        "*a",
        "%",
    ],
)
def test_text_is_read_as_it_was_written(text: str, tmp_path: Path) -> None:
    asked = values()
    for node, key in (("task", "label"), ("model", "path"), ("tracker", "group")):
        asked[node][key] = text
    asked["store"], asked["task"]["text"], asked["lora"]["targets"] = text, [text, "b"], [text]
    assert config_values(stored_config(written(tmp_path, asked))) == asked


@pytest.mark.parametrize("key", ["lora.dora", "task.eval_rows", "probe", "bottleneck", "prompt", "generate"])
def test_what_older_versions_lack_has_the_value_that_they_had(key: str, tmp_path: Path) -> None:
    found = config_values(stored_config(written(tmp_path, changed(key, MISSING))))
    assert found.keys() == values().keys() and found["lora"]["dora"] is False


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("lora.rank", MISSING, r"lora.rank: is missing"),
        ("seed", MISSING, r"seed: is missing"),
        ("lora.removed", 1, r"lora.removed: no such key; lora has rank, "),
        ("later", {"a": 1}, r"later: no such key; the configuration has model, "),
        ("seed", "abc", r"seed: got abc; it must be a whole number"),
        ("lora.rank", 0, r"lora.rank: got 0; it must be a number at least 1"),
        ("method.name", "nope", r"method.name: got 'nope'; allowed: lora, "),
        ("model", [1], r"model: got \[1\]; it has keys of its own"),
        ("lora.rank_pattern", {"v": "x"}, r"lora.rank_pattern.v: got x; it must be a whole number"),
        ("model.path", {"a": 1}, r"model.path: got a value of the wrong type; it must be a string or null"),
    ],
)
def test_another_versions_config_is_one_line_that_names_the_key(
    key: str, value: Any, line: str, tmp_path: Path
) -> None:
    file = written(tmp_path, changed(key, value))
    with pytest.raises(UserError, match=rf"^{file}: {line}[^\n]*another version[^\n]*$"):
        stored_config(file)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"1: 2", b"\xff\xfe", b"[" * 1000, b"a: " + b"1" * 5000, b"a: &x [1]\nb: *x\n", b"a: b: c", b"\0",
     b"!!python/object/apply:os.getcwd []", b"x" * 2_000_000, b"{" * 1000],
    ids=["empty", "list", "numbers", "utf-16", "deep", "digits", "alias", "colons", "nul", "object", "large", "braces"],
)  # fmt: skip
def test_a_damaged_file_is_one_line(content: bytes, tmp_path: Path) -> None:
    file = written(tmp_path, content)
    with pytest.raises(UserError) as caught:
        stored_config(file)
    assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config.yaml: no such file; it is written when a run starts$"):
        stored_config(tmp_path / "config.yaml")
