"""Text output: columns, bold, missing numbers, counts, and times in two units."""

import io

import pytest

from loralab.text import align, bold, clock, count, figure, finite, printed, shown
from tests.runs.test_console import Terminal


def test_columns_are_aligned_and_trimmed() -> None:
    assert align([("a", "b"), ("long", "1")]) == ["a     b", "long  1"]
    assert align([("a", "b"), ("c", "long")], text=2) == ["a  b", "c  long"]


def test_bold_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert bold("x", Terminal()) == "\x1b[1mx\x1b[0m"
    assert bold("x", io.StringIO()) == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert bold("x", Terminal()) == "x"


def test_a_missing_number_is_a_dash() -> None:
    assert (figure(None), figure(0.0), figure(0.12345)) == ("-", "0.0000", "0.1235")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"), (0.2, "1 s"), (0.4, "1 s"), (45.4, "45 s"), (59.4, "59 s"), (59.6, "1 min"), (100, "2 min"),
        (180, "3 min"), (3570, "1 h"), (3595, "1 h"), (3600, "1 h"), (4800, "1 h 20 min"), (89 * 60, "1 h 29 min"),
        (7200, "2 h"), (86_399, "1 d"), (86_400 + 3 * 3600, "1 d 3 h"), (100_000, "1 d 4 h"), (10 * 86_400, "10 d"),
    ],
)  # fmt: skip
def test_a_length_of_time_has_two_units_at_most(seconds: float, said: str) -> None:
    assert clock(seconds) == said


def test_one_is_no_plural() -> None:
    assert (count(1, "run"), count(2, "run"), count(0, "run")) == ("1 run", "2 runs", "0 runs")


def test_a_number_that_json_cannot_hold_is_none() -> None:
    assert [finite(value) for value in (None, float("nan"), float("inf"), -float("inf"), 0.0, 1.5)] == [None] * 4 + [
        0,
        1.5,
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plain λ é 漢", "plain λ é 漢"),
        ("s\x1b[2J\x07\x9b\x7f", "s\\x1b[2J\\x07\\x9b\\x7f"),
        ("invoice\u202efdp.exe\u2066\ufeff", "invoice\\u202efdp.exe\\u2066\\ufeff"),
        ("\udce9.csv", "\\udce9.csv"),
        ("a\tb", "a\\tb"),
        ("one\n\n  two\r\nthree\n", "one two three"),
        ("    indented", "    indented"),
        ("", ""),
    ],
)
def test_a_shown_line_has_no_control_characters(text: str, said: str) -> None:
    assert shown(text) == said
    assert shown(said) == said


def test_a_long_line_loses_its_middle() -> None:
    line = shown("a" * 100_000 + "b" * 100_000)
    assert len(line) == 1_000 and line.startswith("aaa") and line.endswith("bbb") and "a...b" in line
    assert len(shown("a" * 200_000, longest=None)) == 200_000
    assert shown("a" * 1_000) == "a" * 1_000


def test_tables_and_lists_have_no_control_characters() -> None:
    assert align([("\x1b[2J", "1"), ("x", "22")]) == ["\\x1b[2J   1", "x        22"]
    assert printed(["a\nb", "\x1b"]) == "a b\n\\x1b"
