"""adapter_config.json of PEFT: each field is applied, known to change nothing, or refused by name.

One reader for all that read an adapter. Written for the fields of peft 0.4 to 0.21.2; of newer versions a field that is
not known is refused unless its value is null, false or empty.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

from loralab.compat.re import Budget, Pattern, PatternError
from loralab.errors import UserError
from loralab.methods.formats.tensor_file import read_json, shown

__all__ = [
    "ANYTHING",
    "CONFIG",
    "LORA",
    "NAMES",
    "NO_TARGETS",
    "REQUIRED",
    "TASK",
    "TEXT",
    "WEIGHTS",
    "Field",
    "PeftConfig",
    "count",
    "read_config",
]

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
NO_TARGETS = "dummy-target-modules"  # PEFT's own constant for an adapter without LoRA layers
REQUIRED = object()
HEADS = {"SEQ_CLS": ("classifier", "score"), "TOKEN_CLS": ("classifier", "score"), "QUESTION_ANS": ("qa_outputs",)}
NUMBER = "a number other than 0, up to 1e30"
TASKS = ("SEQ_CLS", "SEQ_2_SEQ_LM", "CAUSAL_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION")


class Field(NamedTuple):
    """What a field may hold, as a check and in words, and its value where the file lacks it.

    null: whether null is the default, too (PEFT itself stumbles over null in some).
    """

    allows: Callable[[Any], bool]
    allowed: str
    default: Any = None
    null: bool = True


def _number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _alpha(value: Any) -> bool:
    return _number(value) and 1e-30 <= abs(value) <= 1e30


def count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _by_name(allows: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(allows(each) for each in value.values())


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _one_or_more(value: Any) -> bool:
    return isinstance(value, str) or _strings(value)


def _names(value: Any) -> bool:
    """Plain names: PEFT reads them as expressions, too."""
    given = [value] if isinstance(value, str) else value
    return _strings(given) and all(re.fullmatch(r"[\w.-]+", each) for each in given)


def _layers(value: Any) -> bool:
    given = value if isinstance(value, list) else [value]
    return all(isinstance(each, int) and not isinstance(each, bool) for each in given)


def _plain_init(value: Any) -> bool:
    """The starts of A and B that leave the base as it is; once trained, the adapter is plain LoRA."""
    return isinstance(value, bool) or value in ("gaussian", "eva", "orthogonal", "mica")


FLAG = Field(lambda value: isinstance(value, bool), "true or false", False)
TEXT = Field(lambda value: isinstance(value, str), "a text or null")
TASK = Field(lambda value: value in TASKS, f"{', '.join(TASKS)} or null")
NAMES = Field(lambda value: isinstance(value, list) and _names(value), "a list of names", [])
ANYTHING = Field(lambda _value: True, "anything")
"""A field that changes nothing in what a saved adapter computes."""

LORA: dict[str, Field] = {
    "r": Field(count, "a whole number from 1", REQUIRED),
    "lora_alpha": Field(_alpha, NUMBER, REQUIRED),
    "rank_pattern": Field(_by_name(count), "whole numbers from 1 by expression", {}, null=False),
    "alpha_pattern": Field(_by_name(_alpha), NUMBER + " each", {}, null=False),
    "use_rslora": FLAG,
    "use_dora": FLAG,
    "lora_dropout": Field(lambda p: _number(p) and 0 <= p <= 1, "a number in [0, 1]", 0.0, null=False),
    "bias": Field(lambda value: value in ("none", "all", "lora_only"), "none, all or lora_only", "none", null=False),
    "target_modules": Field(_one_or_more, "a list of names, or one expression", REQUIRED),
    "exclude_modules": Field(_one_or_more, "a list of names, or one expression", []),
    "layers_to_transform": Field(_layers, "a layer's number, or a list of them", []),
    "layers_pattern": Field(_names, "a name, or a list of names", []),
    "modules_to_save": NAMES,
    "fan_in_fan_out": FLAG,  # of the frozen weight; A and B have one layout
    "init_lora_weights": Field(
        _plain_init,
        "true, false, gaussian, eva, orthogonal or mica; others change the base, so that A and B alone are another "
        "model (PEFT's save_pretrained makes plain LoRA of them with path_initial_model_for_weight_conversion)",
        True,
    ),
    "base_model_name_or_path": TEXT,
    "task_type": TASK,
    **dict.fromkeys(("peft_type", "auto_mapping", "inference_mode", "peft_version", "revision"), ANYTHING),
    # of starts of A and B that are refused, or plain; and of other fields that are refused
    **dict.fromkeys(("loftq_config", "eva_config", "corda_config", "lora_ga_config"), ANYTHING),
    **dict.fromkeys(("megatron_core", "qalora_group_size", "runtime_config"), ANYTHING),
    **dict.fromkeys(("merge_weights", "enable_lora"), ANYTHING),  # of peft 0.2
}
"""The fields that a LoRA adapter may have. Any other is refused unless its value is null, false or empty."""


@dataclass(frozen=True)
class PeftConfig:
    """The checked fields of a folder's adapter_config.json, and what they say of each module as PEFT reads them."""

    directory: Path
    kind: str
    values: Mapping[str, Any]

    def __getitem__(self, field: str) -> Any:
        return self.values[field]

    def refuse(self, field: str, what: str) -> UserError:
        """An error of one line about a field."""
        return UserError(f"{self.directory}: its {CONFIG}: {field}: {what}")

    def rank(self, name: str) -> int:
        """r of one module; the first matching key of rank_pattern applies."""
        found: int = self._by_pattern("rank_pattern", "r", name)
        return found

    def scaling(self, name: str, rank: int) -> float:
        """alpha / r or alpha / sqrt(r) of one module; the first matching key of alpha_pattern applies."""
        alpha: float = self._by_pattern("alpha_pattern", "lora_alpha", name)
        return alpha / (math.sqrt(rank) if self["use_rslora"] else rank)

    @property
    def saved(self) -> tuple[str, ...]:
        """Ends of the names of modules that the file brings whole: modules_to_save, and the head of the task type."""
        return (*self["modules_to_save"], *HEADS.get(self["task_type"], ()))

    def saves(self, name: str) -> bool:
        """Whether a module is one of those, or inside one."""
        return any(re.match(rf"(^|.*\.){re.escape(m)}($|\.)", name) for m in self.saved)

    def adapts(self, name: str) -> bool:
        """Whether PEFT gives the module of that name an A and a B."""
        if self._listed("exclude_modules", name) or self.saves(name) or not self._listed("target_modules", name):
            return False
        layers = self["layers_to_transform"]
        if layers == []:
            return True
        at = self._layer(name)
        return at is not None and at in (layers if isinstance(layers, list) else [layers])

    def _layer(self, name: str) -> int | None:
        """The first number after one of layers_pattern (without them: after any part but the first)."""
        patterns = self["layers_pattern"] or None
        for part in [r"[^.]*"] if patterns is None else [patterns] if isinstance(patterns, str) else patterns:
            before = r".*?\." if patterns is None else r"(?:^|.*?\.)"
            match = re.match(rf"{before}{part}\.(?P<at>\d+)\.", name)
            if match is not None:
                return int(match["at"])
        return None

    def _listed(self, field: str, name: str) -> bool:
        given = self[field]
        if isinstance(given, str):
            return bool(self._matching(field, lambda: self._patterns[given](name)))
        return any(name == each or name.endswith(f".{each}") for each in given)

    def _by_pattern(self, field: str, default: str, name: str) -> Any:
        given = self[field]
        key = self._matching(field, lambda: next((each for each in given if self._patterns[each].ends(name)), None))
        return self[default] if key is None else given[key]

    def _matching(self, field: str, found: Callable[[], Any]) -> Any:
        try:
            return found()
        except PatternError as error:
            raise self.refuse(field, str(error)) from error

    @cached_property
    def _patterns(self) -> dict[str, Pattern]:
        budget, found = Budget(), {}
        for field in ("rank_pattern", "alpha_pattern", "target_modules", "exclude_modules"):
            given = self[field]
            for each in [given] if isinstance(given, str) else given if isinstance(given, dict) else ():
                found[each] = self._matching(field, partial(Pattern, each, budget))
        return found


def read_config(directory: Path, tables: Mapping[str, Mapping[str, Field]], *, what: str) -> PeftConfig:
    """The config of a folder whose peft_type is one of `tables`, each the fields that its adapters may have.

    what: an adapter of another type is refused in these words. Raises UserError, naming the field.
    """
    found = read_json(directory, CONFIG, (CONFIG, WEIGHTS[0]))
    kind = found.get("peft_type")
    if kind is None:
        raise UserError(f"{directory}: its {CONFIG} is damaged (no peft_type)")
    if not isinstance(kind, str) or kind not in tables:
        raise UserError(f"{directory}: a {shown(kind).strip(chr(34))} adapter; {what}")
    table = tables[kind]
    values = {}
    for name, field in table.items():
        value = found.get(name)
        if value is None and (field.null or name not in found):
            if field.default is REQUIRED:
                raise UserError(f"{directory}: its {CONFIG} has no {name}; allowed: {field.allowed}")
            value = field.default
        elif not field.allows(value):
            raise UserError(f"{directory}: its {CONFIG}: {name}: got {shown(value)}; allowed: {field.allowed}")
        values[name] = value
    _refuse_others(directory, found, table)
    return PeftConfig(directory, kind, values)


def _refuse_others(directory: Path, found: Mapping[str, Any], known: Iterable[str]) -> None:
    for key, value in found.items():
        empty = value is None or value is False or value in ({}, [])
        if key not in known and not empty:
            name = key if key.isidentifier() and len(key) < 60 else shown(key)
            raise UserError(
                f"{directory}: its {CONFIG}: {name}: got {shown(value)}, which is not supported; such an adapter "
                "computes something else than its A and B alone"
            )
