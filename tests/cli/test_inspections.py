"""The figure of an inspection: where it is written, and when it is not drawn."""

from argparse import Namespace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from loralab.cli.inspections import drawn


def test_a_figure_is_in_the_store_or_where_it_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert drawn(Namespace(to=None, json=False, store=tmp_path), "mine", Figure) == 0
    assert capsys.readouterr().out.splitlines()[0] == str(tmp_path / "figures" / "mine.png")
    assert drawn(Namespace(to=tmp_path / "own.png", json=False, store=tmp_path), "mine", Figure) == 0
    assert {path.name for path in tmp_path.rglob("*.p*")} == {"mine.png", "mine.pdf", "own.png", "own.pdf"}


def test_json_draws_only_if_asked_and_keeps_standard_output_for_the_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def never() -> Figure:
        raise AssertionError("nobody asked for a figure")

    assert drawn(Namespace(to=None, json=True, store=tmp_path), "mine", never) == 0
    assert drawn(Namespace(to=tmp_path / "own.png", json=True, store=tmp_path), "mine", Figure) == 0
    out, err = capsys.readouterr()
    assert out == "" and str(tmp_path / "own.png") in err
