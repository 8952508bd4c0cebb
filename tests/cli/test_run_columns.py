"""The columns of a list of runs: a setting is shown where it tells runs apart."""

from pathlib import Path
from typing import Any

from loralab.cli.run_columns import fitting, heading, plain_columns, table_columns
from loralab.runs.rows import Row
from tests.cli.test_run_filters import row


def titles(*rows: Row, asked: tuple[str, ...] = ()) -> list[str]:
    return [column.title for column in table_columns(rows, asked)][2:-2]


def with_model(number: int, name: str, **more: Any) -> Row:
    return row(number, model=name, model__path=f"some/{name}", seed=number, init_seed=number, data_seed=number, **more)


def test_a_setting_that_another_one_says_is_no_column() -> None:
    assert titles(with_model(0, "one"), with_model(1, "two"))[:2] == ["model", "seed"]
    same = [row(0, model="one", model__path="a/one"), row(1, model="one", model__path="b/one")]
    assert titles(*same)[0] == "path", "two backbones of one name"
    assert titles(row(0, seed=0, init_seed=0), row(1, seed=0, init_seed=1))[0] == "init_seed"


def test_equal_ends_of_keys_are_written_in_full() -> None:
    found = titles(row(0, model="a", model__dropout=0.0, lora__dropout=0.0, optim__lr=1.0),
                   row(1, model="a", model__dropout=0.1, lora__dropout=0.1, optim__lr=2.0))  # fmt: skip
    assert found[:3] == ["lr", "model.dropout", "lora.dropout"]


def test_what_a_run_does_not_have_is_an_empty_cell_and_no_difference() -> None:
    rows = [row(0, method="lora", lora__rank=8), row(1, method="full")]
    assert titles(*rows)[0] == "method" and "rank" not in titles(*rows)
    (rank,) = (column for column in table_columns(rows, ["lora.rank"]) if column.title == "rank")
    assert rank.cells == ("8", "")


def test_the_heading_says_what_all_runs_share() -> None:
    rows = [row(0, model="a", task="t", seed=0), row(1, model="a", task="t", seed=1)]
    assert heading(Path("outputs"), rows) == "2 runs in outputs/runs; all: model=a task=t"


def test_the_leading_settings_make_room_last() -> None:
    rows = [with_model(n, f"m{n}", train__batch_size=n, optim__lr=float(n), accuracy=0.5) for n in range(2)]
    columns = table_columns(rows, ())
    gone = fitting(columns, 0)[1]
    assert gone == ["batch_size", "seed", "lr", "model", "seconds", "when"]
    assert [column.title for column in fitting(columns, 0)[0]][:2] == ["run", "status"]
    assert fitting(columns, None)[1] == []


def test_a_csv_tells_null_from_a_setting_that_a_run_has_not() -> None:
    columns = {c.title: c.cells for c in plain_columns([row(0, optim__clip=None), row(1, optim__clip=1.0), row(2)])}
    assert columns["optim.clip"] == ("null", "1", "")
