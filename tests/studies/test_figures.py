"""Each study's figure needs only its CSV, has the same bytes each time, and is refused if a run is missing."""

import functools
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from loralab import plotting
from loralab.cli.main import main
from loralab.config.overrides import to_override
from loralab.errors import UserError
from loralab.studies import captions, committed, completeness, figures, results, study_module
from loralab.studies.study_module import load_module
from loralab.studies.thinned_curves import curve_columns
from loralab.sweeps.study import open_study, studies
from tests.analysis.frames import distinct, made, module
from tests.small_runs import CONF
from tests.small_studies import MEASURED

ANALYSIS = CONF.parent / "analysis"
OURS = [name for name in studies() if not name.startswith("paper/")]
TRAINED = [name for name in OURS if name not in MEASURED]
HEADER = ("claim", "metric", "command", "cost")
STEPS = range(0, 11, 5)
KINDS = ("png", "pdf", "txt")


def scores(run: dict[str, Any]) -> dict[str, Any] | list[dict[str, Any]]:
    """Scores for any study; a study with one row per step uses the scores that it needs."""
    return distinct(run) | {"correct": "8:a5", "step": 10}


@functools.cache
def smoke(name: str) -> pd.DataFrame:
    """The frame of a study's smoke size, with three steps if it keeps curves; not to be changed."""
    if name in MEASURED:
        whole = module(name).measure(True).assign(commit="c" * 40, diff=None)
        text = whole.to_csv(index=False, float_format="%.10g")
        return pd.read_csv(io.StringIO(text), dtype=dict.fromkeys(results.TEXTS, str))
    if "step" not in getattr(module(name), "KEPT", ()):
        return made(name, scores, "smoke=true")
    return made(name, lambda run: [distinct(run | {"at": at}) | {"step": at} for at in STEPS], "smoke=true")


@pytest.mark.parametrize("name", OURS)
def test_every_study_has_its_header_and_an_analysis_that_keeps_its_axes(name: str) -> None:
    analysis, found = module(name), load_module(name)
    with open_study(name) as study:
        assert Path(str(analysis.__file__)) == ANALYSIS / f"{study_module.analysis_of(study)}.py"
        assert all(study.header.get(key) for key in HEADER)
        assert (found.measurement is not None) is (study.spec.program is not None) is (name in MEASURED)
        if name in MEASURED:
            assert study.spec.program == f"analysis/{name}.py" and f"loralab study {name}" in study.header["command"]
        elif hasattr(analysis, "reduce"):
            assert set(study.axes) <= set(found.axes) <= set(analysis.KEPT), "a hole in an axis not kept hides"


@pytest.mark.parametrize("name", [name for name in studies() if name not in OURS])
def test_a_study_at_paper_scale_is_drawn_by_one_of_these_analyses(name: str) -> None:
    with open_study(name) as study:
        own, axes = study_module.analysis_of(study), study.axes
    if own == study_module.NO_ANALYSIS:
        with pytest.raises(UserError, match=r"has no figure: .* says `analysis: none`"):
            load_module(name)
    else:
        assert own in OURS and set(axes) <= set(load_module(name).axes)


def test_every_csv_and_every_figure_belongs_to_a_study_and_to_each_other() -> None:
    tables = {path.stem for path in (ANALYSIS / "results").glob("*.csv")}
    assert tables <= set(OURS)
    assert {path.name for path in (ANALYSIS / "figures").iterdir()} == {
        f"{name}.{kind}" for name in tables for kind in KINDS
    }
    assert set(committed.names()) == tables


@pytest.mark.parametrize("name", committed.names())
def test_every_csv_that_is_there_is_whole_and_can_be_told_of(name: str) -> None:
    frame, analysis = results.load_results(name), load_module(name)
    kept = getattr(module(name), "KEPT", None)  # a study without `reduce` keeps all columns of its runs
    more = [*curve_columns(frame), *(["correct"] if "correct" in frame else [])]
    assert kept is None or list(frame) == [*kept, *more]
    end = captions.code(frame) if name in MEASURED else captions.provenance(frame)
    assert len(analysis.summary(frame)) and f"{end}." in analysis.caption(frame)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with only the CSVs of `first` and of the measured studies, at smoke size."""
    folder = tmp_path_factory.mktemp("store")
    for name in ("first", *MEASURED):
        results.save(smoke(name), results.target(name, ["smoke=true"], folder))
    return folder


@pytest.mark.parametrize("name", ["first", *MEASURED])
def test_a_figure_takes_the_csv_alone_without_torch_and_has_the_same_bytes_each_time(
    name: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (
        "import sys",
        "from loralab.cli.main import main",
        f"assert main(['figure', {name!r}, 'smoke=true', '--store', {str(store)!r}]) == 0",
        "heavy = {'torch', 'transformers', 'datasets', 'peft', 'wandb'} & set(sys.modules)",
        "sys.exit(f'imported {heavy}' if heavy else 0)",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    stem = results.target(name, ["smoke=true"], store).stem
    paths = [store / "figures" / f"{stem}.{kind}" for kind in KINDS]
    assert done.stdout.splitlines() == [str(path) for path in paths] and not list(tmp_path.iterdir())
    before = [path.read_bytes() for path in paths]
    assert main(["figure", name, "smoke=true", "--store", str(store)]) == 0
    assert [path.read_bytes() for path in paths] == before  # another process, another hash seed
    assert before[0].startswith(b"\x89PNG") and before[1].startswith(b"%PDF")
    assert before[2].endswith(b"Settings: smoke=true.\n")
    assert sorted(path.name for path in store.iterdir()) == ["figures", "results"]


def test_a_figures_name_follows_its_csv_also_below_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis" / "lr_grid.py").symlink_to(ANALYSIS / "lr_grid.py")
    monkeypatch.setattr("loralab.studies.study_module.ANALYSIS", tmp_path / "analysis")
    name = "paper/roberta_grid"
    results.save(made(name, distinct), results.target(name, (), tmp_path))
    folder = tmp_path / "analysis" / "figures" / "paper"
    assert figures.draw(name) == [folder / f"roberta_grid.{kind}" for kind in KINDS]


def test_a_figure_can_have_a_name_and_a_place_of_its_own(store: Path, tmp_path: Path) -> None:
    csv = results.target("first", ["smoke=true"], store, stem="mine")
    results.save(smoke("first"), csv)
    drawn = figures.draw("first", ["smoke=true"], store=store, stem="mine")
    assert drawn == [store / "figures" / f"mine.{kind}" for kind in KINDS]
    there = figures.draw("first", ["smoke=true"], store=store, stem="mine", to=tmp_path / "paper" / "grid.pdf")
    assert there == [tmp_path / "paper" / f"grid.{kind}" for kind in KINDS]
    assert [path.read_bytes() for path in there] == [path.read_bytes() for path in drawn]
    for path in (csv, *drawn):
        path.unlink()


@pytest.mark.parametrize("name", committed.names())
def test_a_committed_figures_caption_has_at_most_three_lines(name: str) -> None:
    caption = (ANALYSIS / "figures" / f"{name}.txt").read_text().splitlines()
    assert 1 <= len(caption) <= plotting.LINES and all(len(line) <= plotting.LINE for line in caption)


@pytest.mark.parametrize("name", committed.names())
def test_a_committed_figure_is_small(name: str) -> None:
    assert (ANALYSIS / "figures" / f"{name}.png").stat().st_size < 200_000


@pytest.mark.parametrize("name", MEASURED)
def test_no_figure_is_drawn_where_what_was_measured_has_a_hole(name: str, tmp_path: Path) -> None:
    frame, path, keys = smoke(name), tmp_path / f"{name}.csv", module(name).KEYS
    results.save(frame, path)
    pd.testing.assert_frame_equal(results.load_results(name, "smoke=true", path=path), frame)
    for at in (0, len(frame) // 2, len(frame) - 1):
        values = {key: value for key, value in frame.loc[at, keys].items() if value == value}
        cell = " ".join(
            f"{key}={value if isinstance(value, str) else f'{value:.10g}'}" for key, value in values.items()
        )
        results.save(frame.drop(index=at), path)
        with pytest.raises(UserError) as error:
            results.load_results(name, "smoke=true", path=path)
        assert f"no row for {cell} (1 of {len(frame)} " in str(error.value)
    path.unlink()
    with pytest.raises(UserError, match=f"{name}.csv is not there; `loralab study {name}` makes it"):
        results.load_results(name, path=path)


@pytest.mark.parametrize("name", TRAINED)
def test_no_figure_is_drawn_with_a_hole_or_a_run_that_is_not_done(name: str, tmp_path: Path) -> None:
    frame, path = smoke(name), tmp_path / f"{name}.csv"

    def refused(spoilt: pd.DataFrame, *words: str) -> None:
        results.save(spoilt, path)
        with pytest.raises(UserError) as error:
            results.load_results(name, "smoke=true", path=path)
        assert all(word in str(error.value) for word in words), str(error.value)

    results.save(frame, path)
    loaded = results.load_results(name, "smoke=true", path=path)
    assert len(loaded) == len(frame)
    with open_study(name, ["smoke=true"]) as study:
        axes, swept = study.axes, completeness.as_swept(study, loaded)
    for stage in frame["stage"].unique():
        of = frame[frame["stage"] == stage]
        for at in (0, len(of) // 2, len(of) - 1):
            run = swept.loc[of.index[at]]
            there = [axis for axis in axes if run[axis] is not None and run[axis] == run[axis]]
            cell = [f"{axis}={to_override(run[axis])}" for axis in there]
            if stage == "confirm":  # a hole in the grid may leave an arm without selection runs
                cell.append("; `loralab study")
            hole = (frame["hash"] == run["hash"]) & (frame["stage"] == stage)
            refused(frame[~hole], "no row for ", *cell)
    last = frame["hash"] == frame["hash"].iloc[-1]
    seed = [f"seed={frame['seed'].iloc[-1]}"] if "seed" in axes else []
    refused(frame.assign(status=frame["status"].mask(last, "failed")), "not done", *seed)
    refused(frame.drop(columns="stage"), "has no column 'stage'", "`loralab collect")
    path.unlink()
    with pytest.raises(UserError, match=f"{name}.csv is not there; `loralab study {name}` makes it"):
        results.load_results(name, path=path)


def test_a_study_that_is_not_there_is_told_with_those_that_are() -> None:
    for ask in (results.load_results, figures.draw):
        with pytest.raises(UserError, match=r"no study is called 'nothing'; .*sweeps/ has .*lr_grid.*ratio"):
            ask("nothing")
