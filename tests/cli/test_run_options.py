"""The options of `loralab runs` and `loralab rm`: mistakes are argparse's, in its own words."""

import argparse

import pytest

from loralab.cli.run_options import add_options, add_rm_options


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["--limit", "0"], "argument --limit: got '0'; it must be a whole number, at least 1"),
        (["--limit", "ten"], "argument --limit: got 'ten'; it must be a whole number, at least 1"),
        (["--json", "--csv"], "argument --csv: not allowed with argument --json"),
    ],
)
def test_a_mistake_names_the_option(given: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(given)
    assert line in capsys.readouterr().err


def test_conditions_add_up() -> None:
    for add in (add_options, add_rm_options):
        parser = argparse.ArgumentParser()
        add(parser)
        assert parser.parse_args(["--where", "a=1", "--where", "b<2"]).where == ["a=1", "b<2"]
        assert parser.parse_args([]).where == []
