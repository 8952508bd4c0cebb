"""A table shows a frame's values as they are, and leads from a row or a cell to exactly the runs that made it."""

from urllib.parse import parse_qsl

import pandas as pd

from loralab.studies.report_table import table, traced, traced_by

SETTINGS = pd.DataFrame(
    [(task, ratio, rate, seed) for task in "ab" for ratio in (1, 16) for rate in (5e-4, 0.01) for seed in (0, 1, 2)],
    columns=["task", "lora.ratio", "optim.lr", "seed"],
)


def test_a_table_aligns_decimals_and_marks_what_is_missing() -> None:
    index = pd.Index(["x", "y"], name="task")
    found = table(
        pd.DataFrame(
            {
                "score": [0.5, 0.8125],
                "rate": [5e-5, 0.01],
                "n": [1, 20],
                "gone": [float("nan"), 2.0],
                "interval": ["[-0.1, 0.2]", None],
                "interior": [True, False],
            },
            index=index,
        )
    )
    assert found.columns == ("task", "score", "rate", "n", "gone", "interval", "interior")
    assert found.rows == (
        ("x", "0.5000", "5e-05", "1", "—", "[-0.1, 0.2]", "yes"),
        ("y", "0.8125", "0.01", "20", "2", "—", "no"),
    )
    assert found.numeric == (False, True, True, True, True, True, False)


def test_a_row_leads_to_the_runs_with_its_settings() -> None:
    summary = pd.DataFrame({"task": ["a", "b"], "ratio": [1.0, 16.0], "lr_A": [5e-4, 0.01], "score": [0.5, 0.25]})
    found = traced(summary, SETTINGS)
    assert [trace and trace.runs for trace in found.row_traces] == [3, 3]
    assert found.row_traces[1] is not None
    assert parse_qsl(found.row_traces[1].query) == [("task", "b"), ("lora.ratio", "16"), ("optim.lr", "0.01")]
    assert [row[1] for row in found.rows] == ["1", "16"], "a setting is shown as the page of the runs shows it"
    assert found.traces == {}


def test_a_cell_leads_to_its_runs_where_the_columns_are_values_of_a_setting() -> None:
    summary = SETTINGS.pivot_table(index="lora.ratio", columns="optim.lr", values="seed")
    found = traced(summary, SETTINGS)
    assert {at: trace.runs for at, trace in found.traces.items()} == {(r, c): 6 for r in (0, 1) for c in (1, 2)}
    assert parse_qsl(found.traces[0, 2].query) == [("lora.ratio", "1"), ("optim.lr", "0.01")]


def test_rows_whose_runs_are_not_known_have_no_link() -> None:
    """Rows that are told apart by what is no setting, by the tuned rate alone, or by a setting with other values."""
    score = {"score": [0.5, 0.25]}
    for columns in ({"arm": ["LoRA", "full"], "ratio": [1, 1]}, {"ratio": [2, 3]}, {"lr_A": [5e-4, 0.01]}, {}):
        found = traced(pd.DataFrame(columns | score), SETTINGS)
        assert found.row_traces == () and found.traces == {}, columns
    found = traced(pd.DataFrame({"ratio": [1, 1, 16], "head": ["a", "b", "b"]}), SETTINGS)
    assert [trace and trace.runs for trace in found.row_traces] == [None, None, 12]


def test_rows_that_a_study_names_itself_lead_to_their_runs_by_the_fewest_settings() -> None:
    summary = pd.DataFrame({"arm": ["LoRA", "LoRA+", "all"], "lr_A": [5e-4, 0.01, 0.01], "score": [0.5, 0.25, 0.1]})
    keys = pd.DataFrame({"arm": SETTINGS["lora.ratio"].map({1: "LoRA", 16: "LoRA+"})})
    found = traced_by(summary, SETTINGS, keys)
    assert [trace and trace.runs for trace in found.row_traces] == [6, 6, None]
    assert found.row_traces[1] is not None
    assert parse_qsl(found.row_traces[1].query) == [("lora.ratio", "16"), ("optim.lr", "0.01")]
    without = traced_by(summary[["arm", "score"]], SETTINGS, keys)
    assert [trace and trace.runs for trace in without.row_traces] == [12, 12, None]


def test_runs_that_no_setting_tells_from_others_have_no_link() -> None:
    half = pd.DataFrame({"arm": ["x" if at % 2 else "y" for at in range(len(SETTINGS))]})
    assert traced_by(pd.DataFrame({"arm": ["x", "y"]}), SETTINGS, half).row_traces == ()


def test_a_combination_that_no_run_has_has_no_link_beside_rows_that_do() -> None:
    partial = SETTINGS.drop(SETTINGS.query("task == 'b' and `lora.ratio` == 1").index)
    found = traced(pd.DataFrame({"task": ["a", "b"], "ratio": [1, 1], "score": [0.5, 0.25]}), partial)
    assert [trace and trace.runs for trace in found.row_traces] == [6, None]
