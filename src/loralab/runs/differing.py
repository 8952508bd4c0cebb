"""The settings in which runs differ, for the columns of tables, the labels of curves and the axes of figures."""

from collections.abc import Sequence
from typing import Any

from loralab.runs.rows import Row, known_keys

__all__ = ["LEADING", "SEEDS", "differing", "independent", "label_of", "short_names", "text_of"]

LEADING = ("model", "task", "method", "lora.rank", "lora.ratio", "optim.lr", "seed")
"""Shown before all others, in this order."""
SEEDS = ("seed", "init_seed", "data_seed", "task.split_seed")
"""Runs that differ in these alone are repetitions of one configuration."""

# Settings that are no news beside another one, where each of its values has one of theirs.
_FOLLOW = {
    **{key: "model" for key in known_keys() if key.startswith("model.")},
    **{key: "task" for key in known_keys() if key.startswith(("task.", "generate."))},
    "init_seed": "seed", "data_seed": "seed", "optim.head_lr": "optim.lr",
}  # fmt: skip
# They change no result, or are resolved to optim.lr.
_NEVER = ("train.device", "train.threads", "train.checkpoint_seconds", "model.default_lr", "model.rates")


def differing(rows: Sequence[Row]) -> list[str]:
    """The settings that differ among the runs that have them, without those that another one says."""
    texts = [{key: text_of(value) for key, value in row.settings.items()} for row in rows]
    keys = [*LEADING, *(key for key in known_keys() if key not in LEADING)]
    values = {key: {text[key] for text in texts if key in text} for key in keys if key not in _NEVER}
    differ = [key for key, found in values.items() if len(found) > 1]
    return [key for key in differ if not _follows(texts, key, _FOLLOW.get(key))]


def independent(rows: Sequence[Row], keys: Sequence[str]) -> list[str]:
    """The keys whose value the keys before them do not determine: alpha is left out where each rank has one."""
    kept: list[str] = []
    for key in keys:
        pairs = {(tuple(_text(row, each) for each in kept), _text(row, key)) for row in rows}
        if len(pairs) > len({of for of, _ in pairs}):
            kept.append(key)
    return kept


def label_of(row: Row, keys: Sequence[str]) -> str:
    """`lora.ratio=4 seed=1`; the keys that the run does not have are left out."""
    return " ".join(f"{key}={text_of(row.settings[key])}" for key in keys if key in row.settings)


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The last part of each key, if no other key ends in it."""
    ends = [key.rpartition(".")[2] for key in keys]
    return {key: end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)}


def text_of(value: Any) -> str:
    """A value as it is typed, without brackets and quotes."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, list):
        return ",".join(map(text_of, value))
    if isinstance(value, dict):
        return ",".join(f"{key}:{text_of(of)}" for key, of in value.items())
    return str(value)


def _text(row: Row, key: str) -> str | None:
    return text_of(row.settings[key]) if key in row.settings else None


def _follows(texts: Sequence[dict[str, str]], key: str, leader: str | None) -> bool:
    if leader is None:
        return False
    pairs = {(text.get(leader), text[key]) for text in texts if key in text}
    return len(pairs) == len({of for of, _ in pairs})
