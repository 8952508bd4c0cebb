"""Regular expressions from foreign files, matched in bounded time: an automaton over the standard library's parse.

`re` itself backtracks: `(a+)+b` takes 2^n steps on n letters. The automaton keeps the set of states that can be
reached, so n letters take n steps for each state. Written for Python 3.11 to 3.14, whose `re._parser` is private.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, cast

__all__ = ["Budget", "Pattern", "PatternError"]

LONGEST = 2000  # characters of an expression or a text
MOST_STATES = 5000  # (a{99}){99} would have 9801
STEPS = 5_000_000  # about 3 s; rank_pattern with one expression for each of 560 maps takes 0.2 million

_parser: Any = re._parser  # type: ignore[attr-defined]  # Python's own parser, which typeshed leaves out
REPEATS = ("MAX_REPEAT", "MIN_REPEAT")
Accepts = Callable[[str], bool]
CATEGORIES: dict[str, Accepts] = {
    "CATEGORY_DIGIT": str.isdecimal,
    "CATEGORY_SPACE": str.isspace,
    "CATEGORY_WORD": lambda c: c.isalnum() or c == "_",
    "CATEGORY_NOT_DIGIT": lambda c: not c.isdecimal(),
    "CATEGORY_NOT_SPACE": lambda c: not c.isspace(),
    "CATEGORY_NOT_WORD": lambda c: not (c.isalnum() or c == "_"),
}


class PatternError(ValueError):
    """What is wrong with an expression, in one line without its place."""


class Budget:
    """The steps that all matches of one file may take together."""

    def __init__(self) -> None:
        self.left = STEPS

    def spend(self, steps: int) -> None:
        """Raises PatternError where they are used up."""
        self.left -= steps
        if self.left < 0:
            raise PatternError("its regular expressions take too long to match; name the modules one by one")


class Pattern:
    """An expression that matches whole texts; `Pattern(p, budget)(text)` is `bool(re.fullmatch(p, text))`.

    The text is not empty. Raises PatternError for what `re` cannot read, and for flags, look-around, back-references
    and atomic groups.
    """

    def __init__(self, expression: str, budget: Budget) -> None:
        self.budget = budget
        if len(expression) > LONGEST:
            raise PatternError(f"a regular expression of {len(expression)} characters; the longest has {LONGEST}")
        try:
            parsed = _parser.parse(expression)
        except (re.error, RecursionError, OverflowError) as error:
            raise PatternError(f"{expression[:60]!r} is no regular expression ({error})") from error
        self.plain = re.compile(expression) if _has_one_way(parsed) else None
        self.states: list[_State] = []
        if parsed.state.flags & ~re.UNICODE.value:
            raise _foreign("a flag")
        if self.plain is None:
            self.start = self._all(parsed, self._state())

    def __call__(self, text: str) -> bool:
        """Whether it matches the whole text. Raises PatternError where the budget is used up."""
        return self._matches(text, [0])

    def ends(self, name: str) -> bool:
        r"""Whether it matches a dotted name or its last parts: `re.match(rf"(.*\.)?({p})$", name)`."""
        return self._matches(name, [0, *(at + 1 for at, letter in enumerate(name) if letter == ".")])

    def _matches(self, text: str, starts: list[int]) -> bool:
        """Whether it matches the text from one of `starts` to its end."""
        if len(text) > LONGEST:
            raise PatternError(f"a name of {len(text)} characters; the longest has {LONGEST}")
        self.budget.spend(len(starts))
        if self.plain is not None:
            return any(self.plain.fullmatch(text, at) for at in starts)
        states: set[int] = set()
        for at, letter in enumerate(text):
            states |= self._reached([self.start], text, at) if at in starts else set()
            self.budget.spend(len(states))
            moved = [self.states[s].then for s in states if (accepts := self.states[s].accepts) and accepts(letter)]
            states = self._reached(moved, text, at + 1)
        return 0 in states

    def _reached(self, states: Iterable[int], text: str, at: int) -> set[int]:
        """The states that need no letter from here, and those given."""
        found: set[int] = set()
        left = [*states]
        while left:
            name = left.pop()
            state = self.states[name]
            if name not in found and (state.holds is None or state.holds(text, at)):
                found.add(name)
                left += state.free
        self.budget.spend(len(found))
        return found

    def _state(self, *free: int, **own: Any) -> int:
        if len(self.states) >= MOST_STATES:
            raise PatternError(f"a regular expression of more than {MOST_STATES} states; name the modules one by one")
        self.states.append(_State(free, **own))
        return len(self.states) - 1

    def _all(self, items: Iterable[Any], then: int) -> int:
        """The state from which `items`, then those of `then`, are matched."""
        for item in reversed([*items]):
            then = self._one(str(item[0]), item[1], then)
        return then

    def _one(self, kind: str, value: Any, then: int) -> int:
        if kind == "SUBPATTERN":
            _group, added, removed, items = value
            if added or removed:
                raise _foreign("a flag")
            return self._all(items, then)
        if kind == "BRANCH":
            return self._state(*[self._all(items, then) for items in value[1]])
        if kind in REPEATS:
            least, most, items = value
            return self._repeat(least, most, items, then)
        if kind == "AT":
            return self._state(then, holds=_place(str(value)))
        return self._state(accepts=_letters(kind, value), then=then)

    def _repeat(self, least: int, most: int, items: Any, then: int) -> int:
        if most == _parser.MAXREPEAT:
            loop = self._state(then)
            again = self._all(items, loop)
            self.states[loop].free = (then, again)
            then, least = (again, least - 1) if least else (loop, 0)
        else:
            end = then
            for _ in range(most - least):
                then = self._state(end, self._all(items, then))
        for _ in range(least):  # each repeat has a state of its own, so that their number is bounded
            then = self._state(self._all(items, then))
        return then


class _State:
    """Goes to `then` by a letter that `accepts`, and to `free` without one; it can be entered where it `holds`."""

    def __init__(
        self,
        free: tuple[int, ...],
        accepts: Accepts | None = None,
        then: int = 0,
        holds: Callable[[str, int], bool] | None = None,
    ) -> None:
        self.free, self.accepts, self.then, self.holds = free, accepts, then, holds


def _has_one_way(items: Iterable[Any]) -> bool:
    """Whether an expression has neither repeats nor branches, so that `re` cannot backtrack."""
    for kind, value in items:
        if str(kind) == "SUBPATTERN":
            if not _has_one_way(value[3]):
                return False
        elif str(kind) not in ("LITERAL", "NOT_LITERAL", "ANY", "IN", "AT"):
            return False
    return True


def _letters(kind: str, value: Any) -> Accepts:
    """Which letters one element of an expression accepts."""
    if kind == "LITERAL":
        return lambda c: ord(c) == value
    if kind == "NOT_LITERAL":
        return lambda c: ord(c) != value
    if kind == "ANY":
        return lambda c: c != "\n"
    if kind == "RANGE":
        return lambda c: cast(bool, value[0] <= ord(c) <= value[1])
    if kind == "CATEGORY" and str(value) in CATEGORIES:
        return CATEGORIES[str(value)]
    if kind == "IN":
        inverted = str(value[0][0]) == "NEGATE"
        parts = [_letters(str(part), what) for part, what in value[inverted:]]
        return lambda c: any(part(c) for part in parts) is not inverted
    raise _foreign(kind.lower())


def _place(kind: str) -> Callable[[str, int], bool]:
    if kind in ("AT_BEGINNING", "AT_BEGINNING_STRING"):
        return lambda _text, at: at == 0
    if kind == "AT_END_STRING":
        return lambda text, at: at == len(text)
    if kind == "AT_END":
        return lambda text, at: text[at:] in ("", "\n")
    inside = kind == "AT_BOUNDARY"
    word = CATEGORIES["CATEGORY_WORD"]

    def holds(text: str, at: int) -> bool:
        sides = [bool(side) and word(side) for side in (text[at - 1 : at] if at else "", text[at : at + 1])]
        return (sides[0] != sides[1]) is inside

    return holds


def _foreign(what: str) -> PatternError:
    return PatternError(f"a regular expression with {what}, which is not matched here; name the modules one by one")
