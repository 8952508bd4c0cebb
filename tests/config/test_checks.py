"""Tests of rules: allowed values pass, others are one line, and check_values applies the rules of every node."""

from dataclasses import asdict, dataclass, field

import pytest
from omegaconf import MISSING, OmegaConf

from loralab.config.checks import (
    added_later,
    brief,
    check_values,
    choice,
    drop_added,
    not_empty,
    number,
    one_of,
    setting,
    within,
)
from loralab.errors import UserError


@dataclass
class Inner:
    rate: float | None = number(above=0, default=None)
    kind: str = choice("one", "two", default="one")
    flag: bool = added_later(field(), before=False)


@dataclass
class Outer:
    inner: Inner = field(default_factory=Inner)
    count: int = number(at_least=1, default=1)
    names: list[str] = setting(not_empty("name one"))  # noqa: RUF009  # a field
    rows: int | None = added_later(number(at_least=1), before=None)


def test_the_far_end_of_a_range_is_named_to_a_value_beyond_it() -> None:
    within("key", 5, at_least=0, at_most=5)
    with pytest.raises(UserError, match=r"^key: got 6; it must be a number at least 0 and at most 5$"):
        within("key", 6, at_least=0, at_most=5)
    with pytest.raises(UserError, match=r"^key: got -1; it must be a number at least 0$"):
        within("key", -1, at_least=0, at_most=5)


def test_a_long_value_is_cut_in_the_middle() -> None:
    assert brief("a") == "'a'"
    assert len(brief("a" * 10_000)) == 60 and "\n" not in brief("a\nb" * 100)


def test_one_of_and_within_let_the_allowed_pass() -> None:
    one_of("key", "a", ("a", "b"))
    within("key", 0, at_least=0)
    within("key", 0.5, above=0, below=1)
    for value in (float("nan"), float("inf"), -1.0):
        with pytest.raises(UserError, match=r"^key: got "):
            within("key", value, at_least=0)


def test_a_fields_rule_is_checked_in_every_node_and_null_passes() -> None:
    check_values(Outer(names=["a"]))
    for wrong, line in (
        (Outer(names=[]), "names: got an empty list; name one"),
        (Outer(names=["a"], rows=0), "rows: got 0; it must be a number at least 1"),
        (Outer(Inner(rate=0.0), names=["a"]), "inner.rate: got 0.0; it must be a number above 0"),
        (Outer(Inner(kind="tow"), names=["a"]), "inner.kind: got 'tow'; allowed: one, two; did you mean 'two'?"),
        (Outer(Inner(rate=0.0), count=0, names=["a"]), "count: got 0; it must be a number at least 1"),
    ):
        with pytest.raises(UserError) as error:
            check_values(wrong)
        assert str(error.value) == line


def test_a_field_without_a_value_is_missing_to_omegaconf_and_defaults_stay() -> None:
    schema = OmegaConf.structured(Outer)
    assert OmegaConf.is_missing(schema, "names")
    assert (schema.count, schema.inner.kind, schema.inner.flag, schema.rows) == (1, "one", False, None)
    assert number().default == choice("a").default == setting(not_empty("")).default == MISSING


def test_a_key_that_was_added_later_is_dropped_where_it_has_the_value_from_before() -> None:
    for config, left in (
        (Outer(names=["a"]), {"inner": {"rate": None, "kind": "one"}, "count": 1, "names": ["a"]}),
        (
            Outer(Inner(flag=True), names=["a"], rows=5),
            {"inner": {"rate": None, "kind": "one", "flag": True}, "count": 1, "names": ["a"], "rows": 5},
        ),
    ):
        values = asdict(config)
        drop_added(values, config)
        assert values == left
