"""Tests of what a tracker is told: scores by their names in a study's table, dotted settings, names of folders."""

from loralab.store.mirror import Ending, file_name, flat
from tests.pages import METRICS


def test_final_scores_have_their_names_in_a_studys_table_and_their_steps() -> None:
    assert list(Ending("success", METRICS).scores()) == [
        (4, {"validation/loss": 0.4, "validation/accuracy": 0.8}),
        (2, {"best/validation/loss": 0.5, "best/validation/accuracy": 0.9}),
        (4, {"test/loss": 0.6}),
    ]
    assert list(Ending("failed", {}).scores()) == []


def test_settings_are_named_as_they_are_written() -> None:
    nested = {"lora": {"ratio": 4, "rank_pattern": {}, "targets": ["q"]}, "seed": 1}
    assert flat(nested) == {"lora.ratio": 4, "lora.rank_pattern": {}, "lora.targets": ["q"], "seed": 1}


def test_a_folders_name_stays_inside_its_folder() -> None:
    assert [file_name(text) for text in ("paper 2/a", "..", "ratio", "")] == ["paper_2_a", "_", "ratio", "_"]
