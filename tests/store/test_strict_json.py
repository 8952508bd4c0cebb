"""A store's JSON has values that every reader can hold."""

import json

import pytest

from loralab.store.strict_json import parse


def test_what_the_store_writes_is_read_back() -> None:
    value = {"a": [1, -2.5, 2**63, 1e300, None, True, "é😀"], "": {}}
    assert parse(json.dumps(value).encode()) == value
    assert parse(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "1e400", "-1e400", "1" + "0" * 30, "-1" + "0" * 400, "9" * 5000])
def test_a_number_that_no_float_or_array_holds_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"for a number|limit"):
        parse(f'{{"a": [{text}]}}'.encode())


@pytest.mark.parametrize("text", ["", "{", "{} {}", "\xff"])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"Expecting|Extra data|decode"):
        parse(text.encode("latin-1"))


def test_half_a_surrogate_pair_is_replaced() -> None:
    assert parse(rb'{"\ud800": ["\uDFFF", "\ud83d\ude00"]}') == {"?": ["?", "😀"]}
