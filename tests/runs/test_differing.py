"""The settings in which runs differ."""

from typing import Any

import pytest

from loralab.runs.differing import differing, independent, label_of, short_names, text_of
from tests.sweeps.made_rows import row


@pytest.mark.parametrize(
    ("value", "text"), [(None, "null"), (True, "true"), (2e-3, "0.002"), (16.0, "16"), (["q", "v"], "q,v"), ({}, "")]
)
def test_values_are_written_as_they_are_typed(value: Any, text: str) -> None:
    assert text_of(value) == text


def test_the_settings_that_differ_come_in_the_order_of_the_tables() -> None:
    rows = [row(0.5, seed=s, optim__lr=lr, lora__ratio=4.0, train__steps=lr) for s, lr in ((0, 1e-3), (1, 2e-3))]
    assert differing(rows) == ["optim.lr", "seed", "train.steps"]
    assert differing(rows[:1]) == []


def test_what_changes_no_result_is_no_difference() -> None:
    assert differing([row(0.5, train__threads=1), row(0.5, train__threads=2)]) == []


def test_a_setting_that_others_determine_is_no_axis_of_its_own() -> None:
    ranks = [row(0.5, lora__rank=r, lora__alpha=2.0 * r, optim__lr=lr) for r in (2, 4) for lr in (1e-3, 2e-3)]
    assert independent(ranks, ["lora.rank", "lora.alpha", "optim.lr"]) == ["lora.rank", "optim.lr"]
    by_the_law = [row(0.5, lora__ratio=r, optim__lr=0.01 / r) for r in (1, 4, 16)]
    assert independent(by_the_law, ["lora.ratio", "optim.lr"]) == ["lora.ratio"]
    assert independent(by_the_law, ["optim.lr", "lora.ratio"]) == ["optim.lr"], "the first of two has it"
    assert independent([row(0.5), row(0.6)], ["optim.lr"]) == []


def test_a_run_is_labelled_by_the_keys_that_it_has() -> None:
    assert (
        label_of(row(0.5, lora__ratio=4.0, optim__lr=1e-3), ["lora.ratio", "optim.lr"]) == "lora.ratio=4 optim.lr=0.001"
    )
    assert label_of(row(0.5, optim__lr=1e-3), ["lora.ratio", "optim.lr"]) == "optim.lr=0.001"


def test_equal_ends_of_keys_are_written_in_full() -> None:
    names = short_names(["lora.dropout", "model.dropout", "optim.lr"])
    assert names == {"lora.dropout": "lora.dropout", "model.dropout": "model.dropout", "optim.lr": "lr"}
