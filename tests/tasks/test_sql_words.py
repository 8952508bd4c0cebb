"""The words of task=sql: each is a valid name in SQLite, and no held-out word is a known one."""

import re
import sqlite3

from loralab.tasks.sql_words import DOMAINS, HELD_OUT, KINDS, RANGES, Words

_SORTS = [*KINDS.values(), *(words for d in DOMAINS for words in (d.tables, d.texts, d.numbers))]


def test_what_stands_behind_the_bar_is_held_out() -> None:
    words = Words.of("a b | c")
    assert (words.known, words.held_out) == (("a", "b"), ("c",))
    assert words.all(held_out=False) == ("a", "b") and words.all(held_out=True) == ("a", "b", "c")
    assert Words.of("a |c").held_out == ("c",) and Words.of("a").held_out == ()


def test_words_are_single_lower_case_and_stand_once_in_their_list() -> None:
    for words in _SORTS:
        every = words.all(held_out=True)
        assert all(re.fullmatch("[a-z]+", word) for word in every)
        assert len(set(every)) == len(every) and words.known


def test_no_held_out_word_is_known_elsewhere() -> None:
    held_out = {word for words in _SORTS for word in words.held_out}
    assert not held_out & {word for words in _SORTS for word in words.known}
    assert held_out == HELD_OUT


def test_as_many_words_are_held_out_as_the_module_says() -> None:
    assert sum(len(d.tables.held_out) for d in DOMAINS) == 9
    assert len({name for d in DOMAINS for name in (*d.texts.held_out, *d.numbers.held_out)}) == 15
    assert {len(words.held_out) for words in KINDS.values()} <= {0, 1, 2}
    assert sum(len(words.held_out) == 2 for words in KINDS.values()) > len(KINDS) / 2


def test_every_column_says_what_it_holds_and_no_kind_is_idle() -> None:
    texts = {name: d.kinds[name] for d in DOMAINS for name in d.texts.all(held_out=True)}
    numbers = {name for d in DOMAINS for name in d.numbers.all(held_out=True)}
    assert set(texts.values()) == set(KINDS) and numbers == set(RANGES)
    assert not set(texts) & numbers
    for low, high, step in RANGES.values():
        assert 0 <= low < high < 10_000 and (high - low) % step == 0


def test_sqlite_takes_every_table_and_column_unquoted() -> None:
    connection = sqlite3.connect(":memory:")
    for domain in DOMAINS:
        columns = [*domain.texts.all(held_out=True), *domain.numbers.all(held_out=True)]
        for table in domain.tables.all(held_out=True):
            connection.execute(f"create table if not exists {table} ({', '.join(f'{name} text' for name in columns)})")
            connection.execute(f"select {', '.join(columns)} from {table}")
    connection.close()
