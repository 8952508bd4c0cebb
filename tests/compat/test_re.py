"""Foreign regular expressions match as `re` does, and none can take long."""

import random
import re
import time

import pytest

from loralab.compat.re import Budget, Pattern, PatternError

ATOMS = ["a", "b", ".", r"\.", r"\d", r"\w", "[ab]", "[^a]", "[a-c1]", r"\b", "^", "$", r"\B", r"\s", r"\S", r"[\d_]"]
NAMES = ("a", "ab", "a.b", "aab.b1", "b_1.a", "a.b.a", "cc", " a", "é.b")
LONG = "base.model.layers.31.self_attn.q_proj" + "a" * 60


def written(draw: random.Random, depth: int) -> str:
    """A random expression."""
    kind = draw.random()
    if depth == 0 or kind < 0.4:
        return draw.choice(ATOMS)
    if kind < 0.6:
        return written(draw, depth - 1) + written(draw, depth - 1)
    if kind < 0.75:
        return f"({written(draw, depth - 1)}|{written(draw, depth - 1)})"
    return f"(?:{written(draw, depth - 1)})" + draw.choice(["*", "+", "?", "*?", "{2}", "{1,3}", "{0,2}?", "{2,}"])


def test_random_expressions_match_as_in_re() -> None:
    draw = random.Random(0)
    for _ in range(1000):
        text = written(draw, 4)
        ours, whole, end = Pattern(text, Budget()), re.compile(text), re.compile(rf"(.*\.)?({text})$")
        for name in NAMES:
            assert ours(name) == bool(whole.fullmatch(name)), (text, name)
            assert ours.ends(name) == bool(end.match(name)), (text, name)


@pytest.mark.parametrize("text", ["(a+)+b", "(.*)*!", "(.*.*.*.*.*.*.*.*)*z", "(?:a?){60}a{60}b", "((a*)*)*b"])
def test_what_re_would_not_finish_takes_no_time(text: str) -> None:
    start = time.process_time()
    assert not Pattern(text, Budget()).ends(LONG)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "'\\[' is no regular expression"),
        ("(" * 2000, "is no regular expression"),
        ("a" * 2001, "a regular expression of 2001 characters; the longest has 2000"),
        ("a{4294967290}", "more than 5000 states"),
        ("(((a{0}){4294967290}){4294967290})", "more than 5000 states"),
        ("((((a{99}){99}){99}){99})", "more than 5000 states"),
        ("(?i)a*", "with a flag"),
        ("(?i:a)*", "with a flag"),
        ("(?=a)b", "with assert"),
        (r"(a)\1", "with groupref"),
        ("(?>a)", "with atomic_group"),
        ("a++", "with possessive_repeat"),
    ],
)
def test_what_is_not_matched_is_refused(text: str, message: str) -> None:
    with pytest.raises(PatternError, match=message) as error:
        Pattern(text, Budget())
    assert "\n" not in str(error.value)


def test_all_matches_of_a_file_share_one_budget() -> None:
    pattern = Pattern("((a?){30}){30}!", Budget())
    with pytest.raises(PatternError, match="take too long to match; name the modules one by one"):
        for _ in range(200):
            pattern("a" * 1000)
    with pytest.raises(PatternError, match="a name of 3000 characters"):
        Pattern("a", Budget())("a" * 3000)
