"""A section's texts: alternative texts from captions, and the origin of results, in which a run counts once."""

import pandas as pd
import pytest

from loralab.studies.report_section import _first_sentences, _provenance, section
from loralab.studies.study_module import load_module
from tests.reported import MARKUP, finished, reported
from tests.small_studies import NAME


def test_a_run_counts_once_however_many_rows_it_has() -> None:
    frame = finished()
    twice = pd.concat([frame, frame]).assign(status=["diverged", *["success"] * 11] * 2)
    found = _provenance(twice, "text")
    assert found["Runs"] == ("12",) and found["Status"] == ("11 success", "1 diverged")
    assert found["Results"][0].startswith("24 rows, SHA-256 982d9e3eb996f559")
    assert _provenance(frame.drop(columns=["hash", "status", "commit", "diff", "threads"]), "")["Rows"] == ("12",)


@pytest.mark.parametrize(
    ("caption", "kept"),
    [
        ("TREC, 2 seeds. 18 runs (0 diverged), code fc5247c.", "TREC, 2 seeds"),
        ("Times. A second backbone is at 0.9 [0.8, 1]. code 36.", "Times. A second backbone is at 0.9 [0.8, 1]"),
        ("No origin.", "No origin"),
    ],
)
def test_the_origin_at_a_captions_end_is_no_part_of_the_alternative_text(caption: str, kept: str) -> None:
    assert _first_sentences(caption) == kept


def test_a_figure_is_described_by_its_caption_its_axes_and_its_panels(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported(tmp_path_factory.mktemp("section"), monkeypatch)
    found = section(NAME, finished(), load_module(NAME), questions=[], csv="a,b", header={}, stem="a/b")
    assert found.picture.alt == (
        f"Figure of {NAME}: Validation loss {MARKUP} against lr_A. validation loss {MARKUP} against lr_A. "
        "panels: confirm; grid. The numbers are in the table below."
    )
    assert (found.title, found.stem, found.topic) == (NAME, "a-b", "Your studies")
    assert 600 < found.picture.width < 700 and 200 < found.picture.height < 250
