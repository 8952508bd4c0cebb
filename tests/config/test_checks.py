"""Laws of ranges: the allowed passes, and what is not is one line."""

import pytest

from loralab.config.checks import one_of, within
from loralab.errors import UserError


def test_one_of_and_within_let_the_allowed_pass() -> None:
    one_of("key", "a", ("a", "b"))
    within("key", 0, at_least=0)
    within("key", 0.5, above=0, below=1)
    for value in (float("nan"), float("inf"), -1.0):
        with pytest.raises(UserError, match=r"^key: got "):
            within("key", value, at_least=0)
