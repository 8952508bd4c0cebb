"""answers.json: a few questions with two answers each; a damaged file is an empty one."""

from pathlib import Path

import pytest

from loralab.store.answers import Sample, answers_table, write_after, write_before


def sample(row: int, answer: str, correct: bool | None) -> Sample:
    return {"row": row, "question": f"what is {row}", "reference": str(row), "answer": answer, "correct": correct}


def test_a_question_is_shown_with_its_reference_and_both_answers(tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    write_before(path, [sample(3, "", False), sample(5, "5", True)])
    assert answers_table(path)[:5] == [
        "test questions, answered before and after training:",
        "",
        "  what is 3",
        "    reference         3",
        "    before     wrong  (nothing)",
    ]
    write_after(path, [sample(3, "3", True), sample(5, "no\nfive", False)])
    assert answers_table(path)[3:] == [
        "    reference         3",
        "    before     wrong  (nothing)",
        "    after      right  3",
        "",
        "  what is 5",
        "    reference         5",
        "    before     right  5",
        "    after      wrong  no five",
        "",
    ]


def test_a_metric_of_the_whole_split_marks_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    write_before(path, [sample(3, "x", None)])
    write_after(path, [sample(3, "y", None)])
    assert answers_table(path)[3:] == ["    reference  3", "    before     x", "    after      y", ""]


def test_an_answer_cannot_move_the_cursor_and_a_long_one_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    write_before(path, [sample(3, "\x1b[2J" + "a" * 1000, False)])
    (line,) = (line for line in answers_table(path) if line.startswith("    before"))
    assert "\x1b" not in line and "\\x1b[2J" in line and len(line) < 200


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'[{"row": 3}]', b"\xff", b'{"a": 1}', b"null"])
def test_a_damaged_file_is_an_empty_one(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "answers.json"
    assert answers_table(path) == []
    path.write_bytes(content)
    assert answers_table(path) == []
    write_after(path, [sample(3, "3", True)])
    assert answers_table(path)[3:] == ["    reference         3", "    after      right  3", ""]


def test_answers_of_other_types_are_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    write_before(path, [sample(3, "3", True)])
    for old, new in (('"answer": "3"', '"answer": 3'), ('"correct": true', '"correct": "yes"')):
        path.write_text(path.read_text().replace(old, new))
        assert answers_table(path) == []
        path.write_text(path.read_text().replace(new, old))
    assert answers_table(path)
