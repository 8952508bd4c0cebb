"""The best fixed template, which ignores the question, scores below 0.1 on held-out tables."""

import numpy as np
import pytest

from loralab.tasks import Pairs, RawTask
from tests.tasks.sql_baseline import best_constant_template

SCRIPT = "create table t (a text, b integer); insert into t values ('x', 3), ('y', 7), ('x', 5);"


def _pairs(questions: list[tuple[str, str]]) -> Pairs:
    return Pairs(
        [f"t ( a text , b number ) {question}" for question, _ in questions],
        [(query,) for _, query in questions],
        np.arange(len(questions), dtype=np.int64),
        [SCRIPT] * len(questions),
    )


@pytest.mark.parametrize("part", ["test", pytest.param("validation", marks=pytest.mark.slow)])
def test_the_best_template_gets_at_most_a_tenth(sql_task: RawTask[Pairs], part: str) -> None:
    template, accuracy = best_constant_template(sql_task.splits[part])
    assert 0.02 < accuracy <= 0.10, template


def test_a_template_that_is_always_right_is_found() -> None:
    queries = {"b of 'x'": "select b from t where a = 'x'", "b of 'y'": "select b from t where a = 'y'"}
    pairs = _pairs(list(queries.items()))
    template, accuracy = best_constant_template(pairs)
    assert accuracy == 1 and template.endswith("where {first text} = {value}")


def test_a_number_that_is_often_right_is_a_template() -> None:
    queries = ["select count(*) from t where a = 'y'", "select count(*) from t where b > 5", "select max(b) - 6 from t"]
    assert best_constant_template(_pairs([("how many", query) for query in queries])) == ("select 1", 1.0)


def test_equal_counts_take_the_first_template_whatever_the_hash_seed() -> None:
    pairs = _pairs([("b", "select b from t")])
    assert best_constant_template(pairs) == ("select {second column} from {table}", 1.0)
