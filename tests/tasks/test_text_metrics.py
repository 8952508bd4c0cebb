"""Texts are scored as sacrebleu, rouge-score and SQLite score them, against every reference of a row."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from loralab.errors import UserError
from loralab.tasks import METRICS, Pairs, RawTask, better, choose, correct, score_texts
from loralab.tasks.text_metrics import TEXT_METRICS

TEXTS = ["the cat sat on the mat", "a dog ran", "birds are singing in the trees today"]
REFERENCES = [("a cat sat on the mat", "the cat sat on the mat"), ("a dog ran",), ("birds sing in trees", "x", "y z")]
SCRIPT = "create table t (a text, b integer); insert into t values ('x', 3), ('y', 7);"


def _pairs(references: list[tuple[str, ...]], databases: list[str] | None = None) -> Pairs:
    rows = np.arange(len(references), dtype=np.int64)
    return Pairs([f"context {i}" for i in rows], references, rows, databases)


@pytest.mark.parametrize(
    ("text", "references", "right"),
    [
        ("a b", ("a b",), True),
        ("  a \n b ", ("a  b",), True),
        ("a b", ("c", "a b"), True),
        ("A b", ("a b",), False),
        ("ab", ("a b",), False),
        ("", ("a",), False),
    ],
)
def test_exact_match_forgives_whitespace_alone(text: str, references: tuple[str, ...], right: bool) -> None:
    assert score_texts(("exact_match",), [text], _pairs([references])) == {"exact_match": float(right)}


@pytest.mark.parametrize(
    ("text", "reference", "right"),
    [
        ("so 2 + 2 = 4 #### 4", "as 1 + 3 = 4\n#### 4", True),
        ("the answer is 1,250.", "x #### 1250", True),
        ("it costs $12.50", "#### 12.5", True),
        ("#### -3", "#### 3", False),
        ("#### 4 (of 5)", "#### 4", True),
        ("4 of 5 ####", "#### 5", True),  # no number behind the mark: the last one
        ("first 4, then 5", "#### 4", False),
        ("none", "#### 4", False),
        ("none", "none", False),
        ("", "#### 0", False),
    ],
)
def test_number_match_reads_the_number_behind_the_mark_or_the_last_one(text: str, reference: str, right: bool) -> None:
    assert score_texts(("number_match",), [text], _pairs([(reference,)])) == {"number_match": float(right)}


def test_execution_accuracy_runs_each_row_on_its_database() -> None:
    pairs = _pairs([("select max(b) from t",)] * 3, [SCRIPT, SCRIPT.replace("7", "8"), SCRIPT])
    answers = ["select 7", "select 7", "no sql"]
    right = correct("execution_accuracy", answers, pairs)
    assert right is not None and right.tolist() == [True, False, False]
    assert score_texts(("execution_accuracy",), answers, pairs)["execution_accuracy"] == pytest.approx(1 / 3)


def test_bleu_and_chrf_are_sacrebleus_with_all_references() -> None:
    ours = score_texts(("bleu", "chrf"), TEXTS, _pairs(REFERENCES))
    streams = [[own[min(k, len(own) - 1)] for own in REFERENCES] for k in range(3)]  # one said twice is said once
    assert ours["bleu"] == sacrebleu.corpus_bleu(TEXTS, streams).score
    assert ours["chrf"] == sacrebleu.corpus_chrf(TEXTS, streams).score
    one = score_texts(("bleu", "chrf"), TEXTS, _pairs([own[:1] for own in REFERENCES]))
    assert all((one[name] or 0) < (ours[name] or 0) for name in ("bleu", "chrf"))  # the second one is the answer


@pytest.mark.parametrize("kind", ["rouge1", "rouge2", "rougeL"])
def test_rouge_is_the_mean_f1_of_the_best_reference(kind: str) -> None:
    scorer = RougeScorer([kind], use_stemmer=True)
    best = [max(scorer.score(r, text)[kind].fmeasure for r in own) for text, own in zip(TEXTS, REFERENCES, strict=True)]
    assert score_texts((kind,), TEXTS, _pairs(REFERENCES))[kind] == pytest.approx(100 * np.mean(best))


def test_a_perfect_answer_has_the_best_score_of_every_metric() -> None:
    queries = ["select a from t where b = 3", "select b from t where a = 'x'"]
    pairs = _pairs([(query,) for query in queries], [SCRIPT] * 2)
    scores = score_texts(tuple(METRICS["generation"]), queries, pairs, loss=0.0)
    shares = {"exact_match", "number_match", "execution_accuracy", "perplexity"}
    expected: dict[str, float | None] = {name: 1.0 if name in shares else 100.0 for name in scores}
    # the second query has no number, and neither has a held-out word
    assert scores == pytest.approx(expected | {"number_match": 0.5, "held_out_accuracy": None})


def test_empty_answers_score_nothing_and_raise_nothing() -> None:
    pairs = _pairs([("select a from t",)], [SCRIPT])
    assert set(score_texts(tuple(TEXT_METRICS), [""], pairs).values()) == {0.0, None}


@pytest.mark.parametrize("metric", TEXT_METRICS)
def test_the_share_of_right_rows_is_the_score(metric: str) -> None:
    answers = ["select 3", "select b from t"]
    pairs = _pairs([("select 3",), ("select b from t where b = 3",)], [SCRIPT] * 2)
    right = correct(metric, answers, pairs)
    assert (right is None) == (metric in ("held_out_accuracy", "bleu", "chrf", "rouge1", "rouge2", "rougeL"))
    if right is not None:
        assert right.dtype == np.bool_ and right.mean() == score_texts((metric,), answers, pairs)[metric] == 0.5


@pytest.mark.parametrize(("metric", "module"), [("bleu", "sacrebleu"), ("rougeL", "rouge_score")])
def test_a_missing_library_is_one_line_before_anything_is_scored(
    monkeypatch: pytest.MonkeyPatch, metric: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    plain = RawTask("t", "generation", None, {"test": _pairs([("a",)])}, ("exact_match",))
    with pytest.raises(UserError, match=rf"^task\.metric: {metric} needs .*; run: pip install -e '\.\[generation\]'$"):
        choose(plain, metric)
    with pytest.raises(UserError, match=rf"^task\.metric: {metric} needs "):
        choose(replace(plain, metrics=("exact_match", metric)), None)
    assert choose(plain, None).metrics == ("exact_match",)


def test_perplexity_is_the_exp_of_the_loss_alone() -> None:
    pairs = _pairs([("a",)])
    assert score_texts(("perplexity",), ["b"], pairs, loss=np.log(7.0)) == {"perplexity": pytest.approx(7)}
    for loss in (1e4, np.inf, np.nan):
        assert score_texts(("perplexity",), ["b"], pairs, loss=loss) == {"perplexity": None}


def test_held_out_accuracy_is_that_of_queries_with_a_word_that_no_training_table_has() -> None:
    script = "create table memoirs (title text); insert into memoirs values ('labyrinth'), ('shadow');"
    references: list[tuple[str, ...]] = [
        ("select title from memoirs",),  # a table
        ("select count(*) from memoirs where title = 'labyrinth'",),
        ("select a from t where a = 'x'",),  # known words
    ]
    pairs = _pairs(references, [script, script, SCRIPT])
    answers = ["select title from memoirs", "select count(*) from memoirs where title = 'shadow of'", "no sql"]
    scores = score_texts(("held_out_accuracy", "execution_accuracy"), answers, pairs)
    assert scores == {"held_out_accuracy": 0.5, "execution_accuracy": pytest.approx(1 / 3)}


def test_a_task_without_databases_has_no_execution_accuracy() -> None:
    plain = RawTask("t", "generation", None, {"test": _pairs([("a",)])}, ("exact_match",))
    with pytest.raises(UserError, match=r"'execution_accuracy' does not score t \(generation\); allowed: exact_match"):
        choose(plain, "execution_accuracy")
    tables = RawTask("t", "generation", None, {"test": _pairs([("a",)], [SCRIPT])}, ("exact_match",))
    assert choose(tables, "execution_accuracy").metrics == ("execution_accuracy", "exact_match")
    assert choose(plain, "rougeL").metrics == ("rougeL", "exact_match")
    with pytest.raises(UserError, match=r"'accuracy' does not score t \(generation\)"):
        choose(plain, "accuracy")


def test_more_is_better_but_of_perplexity() -> None:
    for metric in METRICS["generation"]:
        assert better(metric, 2.0, 1.0) != better(metric, 1.0, 2.0) == (metric == "perplexity")
