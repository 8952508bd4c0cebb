"""`loralab curves`: what is shown and drawn is what the runs wrote, labelled by the settings in which they differ."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loralab.cli.main import main
from loralab.errors import UserError
from loralab.inspect.learning_curves import Learned, drawn, read, table
from loralab.runs.run import run
from loralab.store.run_directory import RunDirectory
from tests.small_runs import config


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[RunDirectory]:
    """Two runs of ratios 1 and 16; not to be changed."""
    store = tmp_path_factory.mktemp("curves")
    for ratio in (1, 16):
        run(config(store, "train.log_every=2", "train.eval_every=4", "optim.lr=1e-2", f"lora.ratio={ratio}"))
    return [RunDirectory(path) for path in sorted((store / "runs").iterdir(), key=lambda path: path.stat().st_mtime)]


def learned(label: str, *values: float, metric: str = "train/loss", every: int = 10) -> Learned:
    steps = every * np.arange(1, len(values) + 1)
    return Learned(label, label, {metric: (steps, np.array(values))})


def blocks(lines: list[str], label: str) -> str:
    (line,) = (line for line in lines if line.startswith(label))
    return "".join(character for character in line if character in "▁▂▃▄▅▆▇█")


def test_the_curves_are_what_the_runs_wrote(two: list[RunDirectory]) -> None:
    for found, directory in zip(read(two), two, strict=True):
        written = [json.loads(line) for line in (directory.path / "metrics.jsonl").read_text().splitlines()]
        for split in ("train", "validation"):
            lines = [line for line in written if line["split"] == split]
            steps, values = found.values[f"{split}/loss"]
            assert steps.tolist() == [line["step"] for line in lines] and len(lines) > 2
            assert values.tolist() == [line["values"]["loss"] for line in lines]
        assert "validation/accuracy" in found.values


def test_runs_are_labelled_by_the_settings_in_which_they_differ(two: list[RunDirectory]) -> None:
    assert sorted(found.label for found in read(two)) == ["lora.ratio=1", "lora.ratio=16"]
    assert [found.label for found in read(two[:1])] == [two[0].path.name]


def test_a_run_without_a_line_says_so(two: list[RunDirectory], tmp_path: Path) -> None:
    bare = RunDirectory(tmp_path / "runs" / two[0].path.name)
    bare.path.mkdir(parents=True)
    (bare.path / "config.yaml").write_bytes((two[0].path / "config.yaml").read_bytes())
    with pytest.raises(UserError, match="has no curve yet"):
        read([bare])


def test_a_falling_curve_falls_and_all_runs_have_one_scale() -> None:
    lines = table([learned("falls", 4, 3, 2, 1), learned("low", 1, 1, 1, 1)])
    falls = blocks(lines, "falls")
    assert falls[0] == "█" and falls[-1] == "▁" and list(falls) == sorted(falls, reverse=True)
    assert set(blocks(lines, "low")) == {"▁"}
    (row,) = (line.split() for line in lines if line.startswith("falls"))
    assert row[-4:] == ["4.0000", "1.0000", "4.0000", "1.0000"]


def test_a_shorter_run_ends_earlier_and_what_is_not_finite_is_blank() -> None:
    lines = table([learned("long", *range(20, 0, -1)), learned("short", *range(20, 10, -1))])
    assert len(blocks(lines, "short")) == pytest.approx(len(blocks(lines, "long")) / 2, abs=2)
    lines = table([learned("diverges", 1.0, 2.0, math.nan), learned("never", math.nan, math.nan)])
    assert "nan" not in "\n".join(lines)
    (row,) = (line.split() for line in lines if line.startswith("never"))
    assert row[-4:] == ["-", "-", "-", "-"]


def test_the_figure_has_every_value(two: list[RunDirectory]) -> None:
    runs = read(two)
    figure: Any = drawn(runs)
    labels = [ax.get_ylabel() for ax in figure.axes]
    assert labels[:2] == ["train loss", "validation loss"] and "validation accuracy" in labels
    for ax in figure.axes:
        for line, found in zip(ax.lines, runs, strict=True):
            assert line.get_label() == found.label
            np.testing.assert_array_equal(line.get_data(), found.values[ax.get_ylabel().replace(" ", "/", 1)])
    with pytest.raises(UserError, match="at most 7 curves"):
        drawn(runs * 4)


def test_the_command_prints_draws_and_gives_numbers(
    two: list[RunDirectory], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, names = two[0].path.parent.parent, [directory.path.name for directory in two]
    assert main(["curves", *names, "--store", str(store), "--to", str(tmp_path / "mine.png")]) == 0
    out = capsys.readouterr().out
    assert "lora.ratio=16" in out and str(tmp_path / "mine.png") in out and (tmp_path / "mine.pdf").is_file()
    assert main(["curves", *names, "--store", str(store), "--json"]) == 0
    given = json.loads(capsys.readouterr().out)
    assert [run["run"] for run in given] == names
    assert given[0]["curves"]["train/loss"]["value"] == read(two)[0].values["train/loss"][1].tolist()
