"""`loralab probes`: the table and the figure show the values in metrics.jsonl, and the verdict follows its rule."""

import json
import math
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from loralab.cli.main import main
from loralab.inspect import probes
from loralab.inspect.probes import COLUMNS, Probed, read, verdict
from loralab.runs.run import run
from loralab.store.run_directory import RunDirectory
from loralab.sweeps.cell import Cell
from loralab.sweeps.collect import curves
from tests.small_runs import config


@pytest.fixture(scope="module")
def looked_at(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run with probes at steps 1, 4, 8 and 12; not to be changed."""
    store = tmp_path_factory.mktemp("looked_at")
    run(config(store, "probe.every=4", "train.log_every=4", "lora.ratio=16"))
    (path,) = (store / "runs").iterdir()
    return RunDirectory(path)


def lines_of(run: RunDirectory, split: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (run.path / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["split"] == split]


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    out, err = capsys.readouterr()
    return status, out, err


def made(*shares: tuple[float, float], init: str = "A") -> Probed:
    """Probes of two maps, each with its own shares of A and B at the steps 10, 20, ..."""
    index = pd.MultiIndex.from_product([["a.q", "a.v"], range(10, 10 * len(shares) + 1, 10)], names=["map", "step"])
    values = pd.DataFrame(1.0, index=index, columns=list(COLUMNS))
    one, two = (np.array([pair[i] for pair in shares] * 2) for i in (0, 1))
    return Probed("mine", 10, 16, init, values.assign(own1=one, own2=two, own3=1 - one - two))


def test_what_is_read_is_what_the_run_wrote(looked_at: RunDirectory) -> None:
    found = read(looked_at)
    assert (found.name, found.every, found.rows, found.init) == (looked_at.path.name, 4, 16, "A")
    written = lines_of(looked_at, "probe")
    assert [line["step"] for line in written] == [1, 4, 8, 12]
    assert len(found.values) == 4 * len(found.maps) == 16
    for line in written:
        for name, value in line["values"].items():
            held = found.values.loc[(name.rsplit("/", 1)[0], line["step"]), name.rsplit("/", 1)[1]]
            assert held == value or (value is None and math.isnan(held))
    assert found.maps[0].endswith("0.attention.self.query"), "in the order of the model"


def test_curves_hold_probes_beside_the_other_splits_and_disturb_none(looked_at: RunDirectory) -> None:
    store, cell = looked_at.path.parent.parent, Cell((), {}, "", looked_at.path.name)
    every = curves(store, [cell])
    assert set(every["split"]) == {"train", "probe", "validation"}
    for split in ("train", "validation"):
        alone = curves(store, [cell], split)
        expected = [v for line in lines_of(looked_at, split) for v in line["values"].values()]
        assert alone["value"].tolist() == expected


def test_the_table_has_medians_over_the_probes_a_row_a_map(looked_at: RunDirectory) -> None:
    found = read(looked_at)
    lines = probes.table(found)
    assert len(lines) == 1 + len(found.maps) + 1
    for line, name in zip(lines[1:], found.maps, strict=False):
        written = [each["values"][f"{name}/delta2"] for each in lines_of(looked_at, "probe")]
        assert float(line.split()[2]) == pytest.approx(median(written), rel=5e-3)
    assert lines[-1].split()[0] == "median"


@pytest.mark.parametrize(
    ("shares", "beginning"),
    [
        ([(0.97, 0.02)] * 3, "B is starved: "),
        ([(0.01, 0.96)] * 3, "A is starved: "),
        ([(0.5, 0.45)] * 3, "neither A nor B is starved ("),
        ([(1.4, -0.5)] * 3, "neither A nor B is starved, though the change goes against B ("),
        ([(0.02, 0.01)] * 3, "neither A nor B moves the outputs by itself: "),
        ([(0.97, 0.02), (0.97, 0.02), (0.6, 0.3)], "B is starved: "),  # the median decides
        ([(0.97, 0.02), (0.6, 0.3), (0.6, 0.3)], "neither A nor B is starved ("),
        ([(0.97, 0.02)] * 2, "too few probes to tell: 2 updates"),
        ([(float("nan"), float("nan"))] * 9, "too few probes to tell: 0 updates"),  # no map moved
        ([(float("nan"), float("nan"))] * 9 + [(0.97, 0.02)] * 3, "B is starved: "),
    ],
)
def test_the_verdict_keeps_its_rule(shares: list[tuple[float, float]], beginning: str) -> None:
    assert verdict(made(*shares)).startswith(beginning)
    assert "\n" not in verdict(made(*shares))


@pytest.mark.parametrize(
    ("shares", "init", "remedy"),
    [
        ((0.97, 0.02), "A", "raise λ, by a lower lr_A"),
        ((0.97, 0.02), "B", "raise λ, by a higher lr_B"),
        ((0.02, 0.97), "A", "a lower λ, by a higher lr_A"),
        ((0.02, 0.97), "B", "a lower λ, by a lower lr_B"),
    ],
)
def test_the_remedy_is_the_rate_that_the_share_hangs_on(shares: tuple[float, float], init: str, remedy: str) -> None:
    assert remedy in verdict(made(*[shares] * 3, init=init))


def test_the_figure_draws_medians_over_the_maps_and_their_range(looked_at: RunDirectory) -> None:
    found = read(looked_at)
    figure = probes.drawn(found)
    parts, shares, own, updates = figure.axes
    assert [len(axes.get_legend_handles_labels()[1]) for axes in figure.axes] == [3, 3, 3, 2]
    line_of_delta2 = parts.lines[1]
    drawn = dict(zip(np.asarray(line_of_delta2.get_xdata()), np.asarray(line_of_delta2.get_ydata()), strict=True))
    for line in lines_of(looked_at, "probe"):
        middle = median(line["values"][f"{name}/delta2"] for name in found.maps)
        if middle > 0:  # the warm-up's first step moves nothing, and a logarithmic axis cannot show 0
            assert drawn.pop(line["step"]) == pytest.approx(middle)
    assert not drawn
    assert [axes.get_yscale() for axes in (parts, shares, own, updates)] == ["log", "linear", "linear", "log"]


def test_the_command_prints_table_and_verdict_and_writes_the_figure_into_the_store(
    looked_at: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = said(capsys, "probes", str(looked_at.path), "--store", str(tmp_path))
    assert (status, err) == (0, "")
    lines = out.splitlines()
    found = read(looked_at)
    assert lines[0] == looked_at.path.name
    assert lines[2 : 2 + len(found.maps) + 2] == probes.table(found)
    assert verdict(found) in lines
    stem = tmp_path / "figures" / f"probes-{looked_at.path.name}"
    assert lines[-2:] == [f"{stem}.png", f"{stem}.pdf"]
    assert all(Path(line).stat().st_size > 1000 for line in lines[-2:])


def test_json_has_every_value_and_draws_nothing(
    looked_at: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads(said(capsys, "probes", str(looked_at.path), "--json", "--store", str(tmp_path))[1])
    assert not list(tmp_path.iterdir())
    assert found["verdict"] == verdict(read(looked_at))
    assert found["steps"] == [1, 4, 8, 12]
    for at, line in enumerate(lines_of(looked_at, "probe")):
        maps = found["maps"].items()
        assert {f"{name}/{q}": column[at] for name, values in maps for q, column in values.items()} == line["values"]


def test_a_run_without_probes_is_one_line_that_names_the_fix(
    finished: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"error: {finished.path.name}: trained without probes; train it with probe.every=50\n"
    assert said(capsys, "probes", str(finished.path)) == (2, "", line)
    older = RunDirectory(tmp_path / "runs" / finished.path.name)
    stored = yaml.safe_load((finished.path / "config.yaml").read_text())
    del stored["probe"]  # like runs older than the probes
    older.begin(yaml.safe_dump(stored))
    assert said(capsys, "probes", str(older.path)) == (2, "", line)


def test_a_run_that_has_just_begun_is_one_line(looked_at: RunDirectory, tmp_path: Path) -> None:
    begun = RunDirectory(tmp_path / "runs" / looked_at.path.name)
    begun.begin((looked_at.path / "config.yaml").read_text())
    assert main(["probes", str(begun.path)]) == 2
