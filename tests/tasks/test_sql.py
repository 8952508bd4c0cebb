"""task=sql: a seed determines every byte, held-out tables are new, and every part of a question matters."""

import hashlib
import re
import sqlite3
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest

from loralab.errors import UserError
from loralab.tasks import Pairs, RawTask, TaskSettings, sql
from loralab.tasks.sql_words import DOMAINS, KINDS

SPLITS = ("train", "validation", "test")
SEED_0 = "48efd9e03c9a5bc1"  # of the generator's version; a change of words, questions or order needs a new version

_CONTEXT = re.compile(r"([a-z]+) \( ((?:[a-z]+ (?:text|number)(?: , )?)+) \) (.+)")
_CONDITION = r"[a-z]+ [=<>] (?:'[a-z]+'|\d+)"
_WHERE = rf"(?: where {_CONDITION}(?: and {_CONDITION})?)?"
_TARGET = re.compile(
    rf"select [a-z]+ from [a-z]+{_WHERE}|select (?:count\(\*\)|(?:max|min|avg|sum)\([a-z]+\)) from [a-z]+{_WHERE}"
    r"|select [a-z]+ from [a-z]+ order by [a-z]+ (?:asc|desc) limit \d|select distinct [a-z]+ from [a-z]+"
)


def _rows(script: str, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(":memory:")
    connection.executescript(script)
    found = connection.execute(query).fetchall()
    connection.close()
    return found


def _columns(context: str) -> frozenset[str]:
    match = _CONTEXT.fullmatch(context)
    assert match is not None, context
    return frozenset(column.split()[0] for column in match[2].split(" , "))


def _words(pairs: Pairs) -> set[str]:
    assert pairs.databases is not None
    texts = [*pairs.contexts, *set(pairs.databases), *(target for (target,) in pairs.references)]
    return set(re.findall(r"[a-z]+", "\n".join(texts)))


def test_splits_have_their_sizes_and_rows_of_their_own(sql_task: RawTask[Pairs]) -> None:
    assert sql_task.kind == "generation" and sql_task.metrics[0] == "execution_accuracy"
    assert {part: len(pairs) for part, pairs in sql_task.splits.items()} == sql.SIZES
    rows = np.concatenate([sql_task.splits[part].rows for part in SPLITS])
    assert rows.tolist() == list(range(sum(sql.SIZES.values())))


def test_a_seed_gives_the_same_bytes_always(sql_task: RawTask[Pairs]) -> None:
    digest = hashlib.sha256()
    for part in SPLITS:
        pairs = sql_task.splits[part]
        assert pairs.databases is not None
        for row in zip(pairs.contexts, pairs.references, pairs.databases, strict=True):
            digest.update(repr(row).encode())
    assert digest.hexdigest()[:16] == SEED_0


def test_another_seed_gives_other_tables(sql_task: RawTask[Pairs], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "SIZES", {"train": 100, "validation": 20, "test": 20})
    again, other = (sql.read(TaskSettings("sql", split_seed=seed)) for seed in (0, 1))
    assert again.splits["train"].contexts == sql_task.splits["train"].contexts[:100]
    assert not set(other.splits["train"].contexts) & set(sql_task.splits["train"].contexts)


@pytest.mark.parametrize(("one", "other"), list(combinations(SPLITS, 2)))
def test_no_two_splits_share_a_set_of_columns_or_a_context(sql_task: RawTask[Pairs], one: str, other: str) -> None:
    contexts = [sql_task.splits[part].contexts for part in (one, other)]
    assert not set(contexts[0]) & set(contexts[1])
    assert not {_columns(text) for text in contexts[0]} & {_columns(text) for text in contexts[1]}


def test_held_out_words_stand_in_no_training_table(sql_task: RawTask[Pairs]) -> None:
    sorts = [*KINDS.values(), *(words for d in DOMAINS for words in (d.tables, d.texts, d.numbers))]
    held_out = {word for words in sorts for word in words.held_out}
    assert not held_out & _words(sql_task.splits["train"])
    known = _words(sql_task.splits["train"])
    for part in ("validation", "test"):
        pairs = sql_task.splits[part]
        assert len(held_out & _words(pairs)) > 0.6 * len(held_out)
        unseen = [target for (target,) in pairs.references if not set(re.findall(r"[a-z]+", target)) <= known]
        assert 0.1 < len(unseen) / len(pairs) < 0.3  # of the answers have such a word


@pytest.mark.parametrize("part", SPLITS)
def test_no_context_is_asked_twice(sql_task: RawTask[Pairs], part: str) -> None:
    contexts = sql_task.splits[part].contexts
    assert len(set(contexts)) == len(contexts)


@pytest.mark.parametrize("part", SPLITS)
def test_texts_are_short_lower_case_and_of_one_form(sql_task: RawTask[Pairs], part: str) -> None:
    pairs = sql_task.splits[part]
    for context, (target,) in zip(pairs.contexts, pairs.references, strict=True):
        match = _CONTEXT.fullmatch(context)
        assert match is not None and 3 <= len(_columns(context)) <= 6
        assert len(context.split()) <= 45 and context == " ".join(context.lower().split())
        assert _TARGET.fullmatch(target), target
        # what the answer needs stands in the context: copying suffices
        values = [value for value in re.findall(r"'\w+'|\d+", target) if not target.endswith(f"limit {value}")]
        assert set(values) <= set(match[3].split())
        assert set(re.findall(r"\b(?:from|where|and|by|distinct) (\w+)", target)) <= {match[1], *_columns(context)}


@pytest.mark.parametrize("part", ["validation", "test"])
def test_results_are_never_empty_and_depend_on_every_part(sql_task: RawTask[Pairs], part: str) -> None:
    pairs = sql_task.splits[part]
    assert pairs.databases is not None
    for (target,), script in zip(pairs.references, pairs.databases, strict=True):
        result = _rows(script, target)
        assert result and result[0] not in ((0,), (None,))
        start, _, where = target.partition(" where ")
        conditions = where.split(" and ") if where else []
        for dropped in conditions:
            rest = [condition for condition in conditions if condition != dropped]
            shorter = f"{start} where {' and '.join(rest)}" if rest else start
            assert sorted(_rows(script, shorter), key=repr) != sorted(result, key=repr), target
        if "order by" in target:  # no tie decides
            number = target.split()[target.split().index("by") + 1]
            top = _rows(script, re.sub(r"select \w+", f"select {number}", target))
            following = _rows(script, re.sub(r"limit (\d)", rf"limit 1 offset {len(top)}", target))
            assert len(set(top)) == len(top) and following


def test_tables_hold_6_to_12_rows(sql_task: RawTask[Pairs]) -> None:
    pairs = sql_task.splits["test"]
    assert pairs.databases is not None
    heights = set()
    for context, script in zip(pairs.contexts, pairs.databases, strict=True):
        heights |= {len(_rows(script, f"select * from {context.split()[0]}"))}
    assert heights == set(range(6, 13))


def test_rows_of_one_table_share_its_script(sql_task: RawTask[Pairs]) -> None:
    databases = sql_task.splits["train"].databases
    assert databases is not None
    assert len({id(script) for script in databases}) == len(set(databases)) < len(databases) / 5


def test_the_seed_must_be_given(read: Callable[..., RawTask]) -> None:
    with pytest.raises(UserError, match=r"task\.split_seed: got null; task=sql is made from it"):
        read("sql")
    with pytest.raises(UserError, match=r"task\.label: got x, but sql has its own data"):
        read("sql", split_seed=0, label="x")


def test_identity_is_the_generators_version(identity: Callable[..., dict[str, str]]) -> None:
    assert identity("sql") == {"data": "sql 1"}
