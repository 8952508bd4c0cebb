"""Queries are compared by their results; a predicted query is read-only and limited in time and size."""

import resource
import time

import pytest

from loralab.tasks.sql_execution import Database, by_script, same_results

SCRIPT = "create table t (a text, b integer); insert into t values ('x', 3), ('y', 7), ('x', 5);"
REFUSED = {
    "nothing": "",
    "a comment": "-- select a from t",
    "no SQL": "the answer is x",
    "unknown column": "select c from t",
    "cut off": "select a from",
    "two statements": "select a from t; select b from t",
    "insert": "insert into t values ('z', 1)",
    "update": "update t set b = 0",
    "delete": "delete from t",
    "drop": "drop table t",
    "create": "create table u (a)",
    "temporary table": "create temp table u as select * from t",
    "attach": "attach database ':memory:' as other",
    "pragma": "pragma table_info(t)",
    "pragma as a table": "select * from pragma_table_info('t')",
    "schema": "select sql from sqlite_master",
    "transaction": "begin",
    "vacuum": "vacuum into '/tmp/never'",
    "extension": "select load_extension('x')",
    "file": "select readfile('/etc/passwd')",
    "random": "select random()",
    "a large value": "select zeroblob(1000000000)",
    "a large text": "select printf('%.*c', 1000000000, 'x')",
    "a long query": f"select a from t where {' or '.join(['b = 1'] * 5_000)}",
    "endless": "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n",
    "many rows": "select 1 from t, t, t, t, t, t, t, t, t, t, t, t",
    "many steps": f"select count(*) from {', '.join(f't as t{i}' for i in range(20))}",
    "parameter": "select a from t where b = ?",
    "NUL": "select a from t\0",
    "half a surrogate pair": "select '\ud800' from t",
}


@pytest.mark.parametrize("query", REFUSED.values(), ids=REFUSED)
def test_what_is_no_modest_read_gives_nothing_and_leaves_the_data(query: str) -> None:
    with Database(SCRIPT) as database:
        assert database.rows(query) is None
        assert database.rows("select a, b from t") == [("x", 3.0), ("y", 7.0), ("x", 5.0)]


@pytest.mark.parametrize(
    ("prediction", "reference", "same"),
    [
        ("select a from t", "select a from t", True),
        ("SELECT a FROM t ORDER BY b DESC", "select a from t", True),  # any order
        ("select distinct a from t", "select a from t", False),  # rows are counted
        ("select b from t order by b desc", "select b from t order by b asc", False),
        ("select b from t order by b", "select b from t order by b asc", True),
        ("select sum(b) * 1.0 from t", "select sum(b) from t", True),  # 15.0 is 15
        ("select 1.0 * sum(b) / count(b) from t", "select avg(b) from t", True),
        ("select a, b from t", "select a from t", False),
        ("select '3' from t limit 1", "select b from t limit 1", False),  # text is no number
        ("select 'x'", "select a from t where b = 3", True),
        ("select nothing", "select nothing", False),  # two failures are not one result
        ("select a from t;", "select a from t", True),
    ],
)
def test_two_queries_are_the_same_by_their_rows(prediction: str, reference: str, same: bool) -> None:
    assert same_results([prediction], [reference], [SCRIPT]).tolist() == [same]


def test_each_row_is_run_on_its_own_database() -> None:
    scripts = [SCRIPT, SCRIPT.replace("7", "8"), SCRIPT]
    assert same_results(["select 7"] * 3, ["select max(b) from t"] * 3, scripts).tolist() == [True, False, True]
    assert by_script(scripts) == {scripts[0]: [0, 2], scripts[1]: [1]}


def test_a_stopped_query_does_not_stop_the_next() -> None:
    with Database(SCRIPT) as database:
        for name in ("endless", "many steps"):
            assert database.rows(REFUSED[name]) is None
        assert database.rows("select count(*) from t") == [(3.0,)]


def _doubled(seed: str, times: int) -> str:
    """SQL for a text that is `seed`, doubled `times` - 1 times."""
    grown = f"with recursive g(s, n) as (select '{seed}', 1 union all select s || s, n + 1 from g where n < {times})"
    return f"({grown} select max(s) from g)"


_COUNT = "r(i) as (select 1 union all select i + 1 from r where i < %d)"
_NESTED = ", ".join(f"c{i + 1} as (select a from c{i} union all select a from c{i})" for i in range(30))
GREEDY = {  # short queries that want gigabytes, minutes, or a temporary file
    "wide rows": f"with recursive {_COUNT % 9000}, c(s) as (select {_doubled('abcdefgh', 6)}) "
    f"select {', '.join(['s'] * 60)} from c, r",
    "long values": f"with recursive {_COUNT % 9000}, c(s) as (select {_doubled('abcdefgh', 13)}) select s from c, r",
    "many kept values": f"with recursive c(g) as (select {_doubled('aaaaaaaa', 7)}), r(i, s) as "
    "(select 1, '' union select i + 1, g || i from r, c where i < 900000) select count(*) from r",
    "a sort": f"with recursive {_COUNT % 90000}, c(g) as (select {_doubled('aaaaaaaa', 7)}) "
    "select i from (select i, g || i as k from c, r order by k limit -1 offset 0)",
    "a long pattern": f"with recursive {_COUNT % 1000}, c(g) as materialized (select {_doubled('aaaaaaaa', 14)}), "
    f"d(p) as materialized (select {_doubled('aaaaaaaa', 13)}) "
    "select count(nullif((g || i) like ('%' || p || 'b'), 1)) from c, d, r",
    "a query of 2^30 parts": f"with c0 as (select a from t), {_NESTED} select count(*) from c30",
}


@pytest.mark.parametrize("query", GREEDY.values(), ids=GREEDY)
def test_a_greedy_query_ends_soon_with_little_memory(query: str) -> None:
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with Database(SCRIPT) as database:
        assert database.rows(query) is None
        assert database.rows("select count(*) from t") == [(3.0,)]
    assert time.process_time() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KB


def test_what_is_sorted_stays_in_memory() -> None:
    with Database(SCRIPT) as database:
        database._connection.set_authorizer(None)
        assert database._connection.execute("pragma temp_store").fetchone() == (2,)


def test_the_slowest_pattern_within_the_limits_takes_seconds() -> None:
    each = " + ".join(["(g like p)"] * 40)
    query = (
        f"with recursive {_COUNT % 1500}, c(g) as materialized (select {_doubled('aaaaaaa', 8)}), "
        f"d(p) as materialized (select '%' || {_doubled('aaaaaaaa', 3)} || 'b') select sum({each}) from c, d, r"
    )
    start = time.process_time()
    with Database(SCRIPT) as database:
        database.rows(query)
    assert time.process_time() - start < 11
