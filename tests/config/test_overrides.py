"""Tests of values on Hydra's command line: written values are read back unchanged, and logspace is geometric."""

import math
import random
import string
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from loralab.config.compose import configs
from loralab.config.overrides import (
    expand_logspace,
    listed,
    name_of,
    read,
    settings,
    size_of,
    to_override,
    values_of,
)
from loralab.errors import UserError

ODD = [
    "",
    "16",
    "1e-3",
    "true",
    "NULL",
    "nan",
    "-inf",
    "a b",
    "a,b",
    "it's",
    'say "x"',
    "é",
    "[q]",
    "x=y",
    "a\\",
    "\\'",
]
ODD += ["${seed}", "range(3)", " edge ", "tab\t", "layer.*.query", "a:b", "+5", "1_0", "-", "\\\\'x"]


def back(text: str) -> Any:
    """What Hydra reads."""
    return OverridesParser.create().parse_override(f"key={text}").value()


def drawn(draw: random.Random, depth: int = 2) -> Any:
    """A random value of the kinds that a config can hold."""
    kind = draw.randrange(8 if depth else 6)
    if kind == 0:
        return draw.choice([None, True, False])
    if kind == 1:
        return draw.randrange(-(10**9), 10**9)
    if kind == 2:
        return draw.choice([draw.uniform(-1, 1) * 10.0 ** draw.randrange(-12, 20), float(draw.randrange(100))])
    if kind == 3:
        return draw.choice(ODD)
    if kind in (4, 5):
        return "".join(draw.choices(string.printable.replace("\x0b", "").replace("\x0c", ""), k=draw.randrange(8)))
    if kind == 6:
        return [drawn(draw, depth - 1) for _ in range(draw.randrange(4))]
    return {
        "".join(draw.choices("ab*.[ ", k=3)).strip() + "k": drawn(draw, depth - 1) for _ in range(draw.randrange(3))
    }


@pytest.mark.parametrize("seed", range(300))
def test_what_is_written_reads_back_as_it_was(seed: int) -> None:
    value = drawn(random.Random(seed))
    read_back = back(to_override(value))
    assert read_back == value
    assert to_override(read_back) == to_override(value)


@pytest.mark.parametrize("text", ODD)
def test_text_stays_text(text: str) -> None:
    assert back(to_override(text)) == text and isinstance(back(to_override(text)), str)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-3, "0.001"),
        (5e-5, "5e-05"),
        (0.1 + 0.2, "0.30000000000000004"),
        (16.0, "16"),
        (1e6, "1000000"),
        (True, "true"),
        (None, "null"),
        (["q", "v"], "[q,v]"),
        ({"v": 16}, "{v:16}"),
        ("alpha/r", "alpha/r"),
        ("16", "'16'"),
    ],
)
def test_values_are_written_in_their_shortest_exact_text(value: Any, text: str) -> None:
    assert to_override(value) == text


def test_values_that_differ_have_texts_that_differ() -> None:
    texts = [to_override(value) for value in (1, True, "1", "true", None, "null", [1], [[1]], "", 0, False, 1.5, "1.5")]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(
    ("value", "values"),
    [
        ([0, 1], [0, 1]),
        (7, [7]),
        (None, [None]),
        ("tiny", ["tiny"]),
        ("0,1,2", [0, 1, 2]),
        ("range(3)", [0, 1, 2]),
        ("range(0.1,0.5,0.1)", [0.1, 0.2, 0.3, 0.4]),
        ("choice(a,b)", ["a", "b"]),
        ("shuffle(3,1,2)", [3, 1, 2]),
        ("[q,v]", [["q", "v"]]),
        ("[q],[q,v]", [["q"], ["q", "v"]]),
        ("'a b',null", ["a b", None]),
        ("1e-3", [1e-3]),
        (["a,b", "range(3)"], ["a,b", "range(3)"]),
        ([["q"], ["q", "v"]], [["q"], ["q", "v"]]),
        ([{"v": 16}], [{"v": 16}]),
        ("logspace(1,100,3)", [1, 10, 100]),
    ],
)
def test_a_file_lists_values_in_yaml_or_in_hydras_text(value: Any, values: list[Any]) -> None:
    assert listed(value, "key", "here") == values


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("interval(0,1)", r"here: got interval\(0,1\), which lists no values; "),
        ("range(3", r"here: got 'range\(3', which Hydra cannot read; "),
        ("lograngs(1,2)", r"here: got 'lograngs\(1,2\)', which Hydra cannot read; "),
        ("range(3,3)", r"here: got range\(3,3\), which has no values; "),
        ("range(0,1,0)", r"here: got range\(0,1,0\), whose step is 0; "),
        ([], r"here: got \[\], which has no values; "),
        ({"ratio": [1]}, r"here: got a mapping; write dotted keys \(key\.KEY: "),
        ("glob(*)", r"here: got glob\(\*\), which only a running Hydra can list; "),
        ("logspace(0,1,3)", r"here: got logspace\(0,1,3\); both bounds must be positive"),
    ],
)
def test_what_lists_no_values_is_a_mistake_in_one_line(value: Any, line: str) -> None:
    with pytest.raises(UserError, match=line):
        listed(value, "key", "here")


def test_a_running_hydra_lists_the_options_of_a_group() -> None:
    with configs():
        assert values_of(read("method=glob(lora*)"), "method") == ["lora", "lora_plus", "lora_prefix"]


@pytest.mark.parametrize(
    ("argument", "expanded"),
    [
        ("optim.lr=logspace(1e-4,1e-2,5)", "optim.lr=0.0001,0.000316,0.001,0.00316,0.01"),
        ("lora.rank=logspace(1, 64, 7)", "lora.rank=1,2,4,8,16,32,64"),
        ("optim.lr=logspace(1e-2,1e-4,3)", "optim.lr=0.01,0.001,0.0001"),
        ("optim.lr=logspace(1.2345e-4,1,2)", "optim.lr=0.00012345,1"),
        ("optim.lr=logspace(3,5,1)", "optim.lr=3"),
        ("+optim.lr=0.5,logspace(1,100,3)", "+optim.lr=0.5,1,10,100"),
        ("train.steps=logspace(1,1e6,2)", "train.steps=1,1000000"),
        ("optim.lr=0.1", "optim.lr=0.1"),
        ("note='logspace(1,2,3)'", "note='logspace(1,2,3)'"),
        ("--config-dir=logspace(1,2,3)", "--config-dir=logspace(1,2,3)"),
        ("--help", "--help"),
        ("~lora", "~lora"),
    ],
)
def test_logspace_on_the_command_line_becomes_a_list_that_hydra_reads(argument: str, expanded: str) -> None:
    assert expand_logspace(argument) == expanded


@pytest.mark.parametrize("seed", range(50))
def test_logspace_is_geometric_and_has_both_ends(seed: int) -> None:
    draw = random.Random(seed)
    start, stop, num = 10 ** draw.uniform(-9, 2), 10 ** draw.uniform(3, 6), draw.randrange(2, 30)
    values = values_of(read(expand_logspace(f"x=logspace({start!r},{stop!r},{num})")), "x")
    assert len(values) == num and (values[0], values[-1]) == (start, stop)
    for i, value in enumerate(values):
        exact = start * (stop / start) ** (i / (num - 1))
        assert math.isclose(value, exact, rel_tol=0.0051)
        assert i in (0, num - 1) or float(f"{value:.3g}") == value


@pytest.mark.parametrize(
    ("inside", "wrong"),
    [
        ("-1,1,3", "both bounds must be positive numbers"),
        ("0,1,3", "both bounds must be positive numbers"),
        ("1,inf,3", "both bounds must be positive numbers"),
        ("1,nan,3", "both bounds must be positive numbers"),
        ("1,2,0", "the number of values must be at least 1"),
        ("1,2,2.5", "it takes two bounds and a whole number of values"),
        ("1,2", "it takes two bounds and a whole number of values"),
        ("a,2,3", "it takes two bounds and a whole number of values"),
        ("1,1.01,50", "these are not 50 different values of 3 significant digits"),
    ],
)
def test_a_wrong_logspace_is_told_in_one_line(inside: str, wrong: str) -> None:
    with pytest.raises(UserError) as caught:
        expand_logspace(f"+optim.lr=logspace({inside})")
    assert str(caught.value).startswith(f"optim.lr: got logspace({inside}); {wrong}")


def test_an_axis_goes_by_its_key_without_signs() -> None:
    names = [name_of(read(argument)) for argument in ("seed=1", "+seed=1", "++seed=1", "~seed", "model@a.b=tiny")]
    assert names == ["seed", "seed", "seed", "seed", "model@a.b"]


def test_settings_of_a_job_are_typed() -> None:
    job = ("+sweeps=ratio", "task=trec", "++optim.lr=1e-3", "lora.targets=[q,v]", "~x", "optim.clip=null", "a='1'")
    expected = {"sweeps": "ratio", "task": "trec", "optim.lr": 1e-3, "lora.targets": ["q", "v"], "optim.clip": None}
    assert settings(job) == {**expected, "a": "1"}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("a=1", 1),
        ("a=1,2,3", 3),
        ("a=choice(1,2)", 2),
        ("a=range(10)", 10),
        ("a=range(1,10,3)", 3),
        ("a=range(10,0,-4)", 3),
        ("a=range(10,0)", 0),
        ("a=range(0.5,2,0.5)", 3),
        ("a=shuffle(range(7))", 7),
        ("a=sort(range(7),reverse=true)", 7),
        ("a=interval(0,1)", 1),
        ("a=range(1000000000000)", 10**12),
    ],
)
def test_the_values_of_an_override_are_counted_without_being_listed(text: str, size: int) -> None:
    assert size_of(read(text), "a") == size
    if 1 < size < 100:
        assert len(values_of(read(text), "a")) == size


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a=range(0,inf)", "a: got range(0,inf); a range's start, stop and step are finite numbers"),
        ("a=range(nan,1)", "a: got range(nan,1); a range's start"),
        ("a=range(0,1,0)", "a: got range(0,1,0), whose step is 0; give it another"),
        ("a=range(100001)", "a: got range(100001), which has 100,001 values; a sweep has at most 100,000 jobs"),
        ("a=range(0,1e308,1e-308)", "a: got range(0,1e308,1e-308), which has more than 10^15 values; a sweep has"),
    ],
)
def test_an_endless_range_is_refused_at_once(text: str, line: str) -> None:
    with pytest.raises(UserError) as caught:
        values_of(read(text), "a")
    assert str(caught.value).startswith(line)
    with pytest.raises(UserError):
        listed(text.removeprefix("a="), "a", "params.a")


def test_a_logspace_without_end_is_refused_at_once() -> None:
    with pytest.raises(UserError, match=r"which has 1,000,000,000 values; a sweep has at most 100,000 jobs"):
        expand_logspace("a=logspace(1,2,1000000000)")
