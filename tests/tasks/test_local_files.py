"""What task=local and task=pairs share: one-line errors, unchanged cells, and shares that lose no row."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loralab.errors import UserError
from loralab.tasks import TaskFiles, TaskSettings, local_files
from loralab.tasks.splits import Pairs, Texts
from loralab.tasks.table_files import Table

ROWS = np.arange(60, dtype=np.int64)
TEXTS: list[tuple[str, ...]] = [(f"text {i % 50}",) for i in ROWS]
SPLITS = (
    Texts(TEXTS, ROWS % 2, ROWS),
    Pairs([text[0] for text in TEXTS], [(f"answer {i}",) for i in ROWS], ROWS),
)
CUT = TaskSettings("pairs", validation_share=0.2, test_share=0.3, split_seed=0)


def table(cells: list[Any]) -> Table:
    return Table(Path("mine.jsonl"), {"said": cells}, [f"line {i}" for i, _ in enumerate(cells, start=1)])


@pytest.mark.parametrize("whole", SPLITS, ids=["texts", "pairs"])
def test_shares_cut_either_kind_alike_and_keep_equal_texts_together(whole: Any) -> None:
    found = local_files.with_shares({"train": whole}, TEXTS, CUT)
    assert list(found) == ["train", "validation", "test"] and {type(part) for part in found.values()} == {type(whole)}
    assert sorted(np.concatenate([part.rows for part in found.values()])) == ROWS.tolist()
    seen = [{TEXTS[row] for row in part.rows} for part in found.values()]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 50
    assert [len(part) for part in found.values()] == pytest.approx([30, 12, 18], abs=1)
    other = local_files.with_shares({"train": SPLITS[0]}, TEXTS, CUT)
    assert all(np.array_equal(found[part].rows, other[part].rows) for part in found)


def test_a_split_with_a_file_is_not_cut() -> None:
    given = {"train": SPLITS[0], "test": SPLITS[0].take(np.arange(5))}
    found = local_files.with_shares(given, TEXTS, replace(CUT, test_share=None))
    assert found["test"] is given["test"]
    assert len(found["train"]) + len(found["validation"]) == 60 and len(found["validation"]) >= 12
    every = given | {"validation": given["test"]}
    assert local_files.with_shares(every, TEXTS, TaskSettings("pairs")) == every


@pytest.mark.parametrize("cell", [None, "", " \n", float("nan")])
def test_null_nan_and_blank_are_empty(cell: Any) -> None:
    assert local_files.is_empty(cell)
    with pytest.raises(UserError, match=r"^mine\.jsonl, line 2: column 'said' is empty; every row needs its text$"):
        local_files.texts(table(["a", cell]), "said", numbers=True)


@pytest.mark.parametrize("cell", [0, 0.0, False, "0", [], {}])
def test_nothing_else_is_empty(cell: Any) -> None:
    assert not local_files.is_empty(cell)


def test_numbers_are_text_where_they_are_asked_for() -> None:
    cells = ["  as it is ", 7, 0.5, -1e300]
    assert local_files.texts(table(cells), "said", numbers=True) == ["  as it is ", "7", "0.5", "-1e+300"]
    with pytest.raises(UserError, match=r"^mine\.jsonl, line 2: column 'said' holds int 7, not text$"):
        local_files.texts(table(cells), "said")


@pytest.mark.parametrize("numbers", [False, True])
@pytest.mark.parametrize(
    ("cell", "holds"),
    [
        (True, "bool True, not text"),
        (["a"], "list ['a'], not text"),
        ("\ud800", "half a surrogate pair, which is not text"),
    ],
)
def test_what_is_no_text_is_named_by_its_line(numbers: bool, cell: Any, holds: str) -> None:
    with pytest.raises(UserError, match=rf"^mine\.jsonl, line 1: column 'said' holds {re.escape(holds)}$"):
        local_files.texts(table([cell]), "said", numbers=numbers)


def test_a_task_asks_for_its_training_file_by_its_own_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^task\.files\.train: task=pairs needs a training file, e\.g\. "):
        local_files.paths(TaskSettings("pairs"))
    file = tmp_path / "mine.csv"
    file.write_text("a,b\n")
    two = TaskSettings("pairs", files=TaskFiles(train=str(file), test=str(file)))
    assert local_files.paths(two) == {"train": file, "test": file}
    assert set(local_files.identity(replace(two, files=TaskFiles(train=str(file))), None)) == {"train"}


def test_columns_are_one_or_two_of_text_and_another_of_labels() -> None:
    settings = TaskSettings("pairs", text=("a", "b"), label="y")
    assert local_files.columns(settings) == (("a", "b"), "y")
    for text in ((), ("a", "a"), ("a", "b", "c")):
        with pytest.raises(UserError, match=r"^task\.text: got .*; allowed: one or two text columns, e\.g\. "):
            local_files.columns(replace(settings, text=text))
    for label in (None, "a"):
        with pytest.raises(UserError, match=r"^task\.label: got .*; allowed: a column that is not in task\.text$"):
            local_files.columns(replace(settings, label=label))
