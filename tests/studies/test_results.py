"""A study's CSV: Python loads what the command saves, and neither leaves out a run."""

import csv
import io
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from loralab.cli.main import main
from loralab.errors import UserError
from loralab.runs.record import fail
from loralab.studies import results
from loralab.studies.completeness import plain
from loralab.studies.results import load_results, reduce_study, save, target
from loralab.studies.tables import load_study
from loralab.sweeps.study import open_study
from tests.small_runs import config
from tests.small_studies import FIRST, NAME, SETTINGS, checkout, first_stage

COMMITTED = sorted((Path(__file__).parents[2] / "analysis" / "results").glob("*.csv"))
DRAW = "def draw(frame):\n    raise NotImplementedError\n"
REDUCER = """
AXES = ("seed", "task")
def draw(frame):
    raise NotImplementedError
def reduce(found):
    return found.runs.groupby("lora.ratio", as_index=False)["validation/loss"].mean()
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with only the study of two stages."""
    return checkout(tmp_path / "checkout", monkeypatch)


@pytest.fixture
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return first_stage(tmp_path_factory)


@pytest.fixture
def holes(done: Path, tmp_path: Path) -> Path:
    """A store in which one run failed and one is missing."""
    shutil.copytree(done, tmp_path / "holes")
    with open_study(NAME, SETTINGS, store=tmp_path / "holes") as study:
        for job in study.grid[:2]:
            shutil.rmtree(study.planned(job).directory.path)
        fail(study.planned(study.grid[0]), "RuntimeError: out of luck", started=0.0)
    return tmp_path / "holes"


def test_collect_saves_what_python_loads_with_a_row_for_what_is_not_done(
    holes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "deep" / "mine.csv"
    assert main(["collect", NAME, *SETTINGS, "--store", str(holes), "--to", str(to)]) == 0
    out, err = capsys.readouterr()
    assert (out.splitlines()[0], err) == (f"8 runs (6 success, 1 failed, 1 missing) in {to}", "")
    found = pd.read_csv(to, dtype={"hash": str, "commit": str, "diff": str})
    runs = load_study(NAME, *SETTINGS, store=holes).runs
    assert list(found.columns) == list(runs.columns)
    assert found["status"].tolist() == runs["status"].tolist() == ["failed", "missing", *["success"] * 6]
    assert found["error"][0] == "RuntimeError: out of luck"
    assert found["hash"].tolist() == runs["hash"].tolist()
    for name in ("validation/loss", "test/accuracy", "optim.lr", "started", "seconds"):
        pd.testing.assert_series_equal(found[name], runs[name].astype(float), rtol=1e-9)
    assert found["validation/loss"].isna().tolist() == [True, True, *[False] * 6]


def test_collect_reduces_as_the_studys_analysis_says(done: Path, root: Path, tmp_path: Path) -> None:
    (root / "analysis").mkdir()
    (root / "analysis" / f"{NAME}.py").write_text(REDUCER)
    assert main(["collect", NAME, *SETTINGS, "--store", str(done), "--to", str(tmp_path / "small.csv")]) == 0
    found = pd.read_csv(tmp_path / "small.csv")
    runs = load_study(NAME, *SETTINGS, store=done).runs
    assert found.columns.tolist() == ["lora.ratio", "validation/loss"] and found["lora.ratio"].tolist() == [1, 16]
    ratio_one = runs.loc[(runs["lora.ratio"] == 1) & (runs["status"] == "success"), "validation/loss"]
    assert found["validation/loss"][0] == pytest.approx(ratio_one.mean(), rel=1e-9)


def test_without_an_analysis_the_runs_are_what_is_saved(done: Path) -> None:
    runs = load_study(NAME, *SETTINGS, store=done).runs
    with open_study(NAME, SETTINGS, store=done) as study:
        pd.testing.assert_frame_equal(reduce_study(study), runs)


def test_an_analysis_finds_a_column_for_each_of_its_axes_whether_or_not_it_varies(done: Path, root: Path) -> None:
    (root / "analysis").mkdir()
    axes = ["seed", "task", "model", "lora.targets", "lora.rank", "optim.head_lr"]
    (root / "analysis" / f"{NAME}.py").write_text(f"AXES = {axes}\n{DRAW}")
    runs = load_study(NAME, *SETTINGS, store=done).runs
    with open_study(NAME, SETTINGS, store=done) as study:
        found = reduce_study(study)
    pd.testing.assert_frame_equal(found[list(runs)], runs)
    names = list(found)
    assert names[: names.index("status")] == [*list(runs)[: list(runs).index("status")], *axes[1:]]
    assert set(found[axes[1:5]].itertuples(index=False, name=None)) == {("rotten_tomatoes", "tiny", "q,v", 8)}
    assert found["optim.head_lr"].tolist() == runs["optim.lr"].tolist(), "as the run resolves null"
    assert "task" not in runs


def test_an_axis_that_one_stage_pins_has_its_value_there(done: Path, root: Path) -> None:
    """The first stage has one seed and the second has others: `seed` varies, but not in the first stage."""
    (root / "analysis").mkdir()
    (root / "analysis" / f"{NAME}.py").write_text(REDUCER.partition("def reduce")[0])
    with open_study(NAME, [*SETTINGS, "seed=0"], store=done) as study:
        frame = reduce_study(study)
        assert set(study.cells()[-1].axes) > {"seed"}
    assert frame.loc[frame["stage"] == "grid", "seed"].tolist() == [0] * 4
    assert frame.loc[frame["stage"] == "confirm", "seed"].tolist() == [100, 101] * 2
    assert set(frame["task"]) == {"rotten_tomatoes"}


@pytest.fixture
def whole() -> pd.DataFrame:
    """Both stages finished; the lower rate of each arm is the better one."""
    fresh = [(seed, ratio, rate) for seed in (100, 101) for ratio, rate in ((1, 0.001), (16, 0.0005))]
    runs = pd.DataFrame([*FIRST, *fresh], columns=["seed", "lora.ratio", "optim.lr"])
    runs.insert(0, "stage", ["grid"] * len(FIRST) + ["confirm"] * len(fresh))
    runs["status"], runs["validation/loss"] = "success", runs["optim.lr"] + 0.5
    return runs.assign(hash=[f"{at:010d}" for at in range(len(runs))], commit="1e5", diff=None)


def test_a_whole_csv_loads_with_its_hashes_as_text(whole: pd.DataFrame, tmp_path: Path) -> None:
    save(whole.sample(frac=1, random_state=0), tmp_path / "x.csv")
    found = load_results(NAME, path=tmp_path / "x.csv").sort_values("hash", ignore_index=True)
    assert found["hash"].tolist() == whole["hash"].tolist() and set(found["commit"]) == {"1e5"}
    assert len(load_results(NAME, "seed=0", path=tmp_path / "x.csv")) == 12  # additional rows are allowed


@pytest.mark.parametrize("at", range(12))
def test_a_row_that_is_not_there_is_named(whole: pd.DataFrame, tmp_path: Path, at: int) -> None:
    save(whole.drop(index=at), tmp_path / "x.csv")
    row = whole.iloc[at]
    cell = f"seed={row['seed']} lora.ratio={row['lora.ratio']} optim.lr={row['optim.lr']:g}"
    with pytest.raises(UserError, match=re.escape(f"x.csv: no row for {cell} (1 of {8 if at < 8 else 4} runs")):
        load_results(NAME, path=tmp_path / "x.csv")


@pytest.mark.parametrize("status", ["failed", "missing", "running"])
def test_a_run_that_is_not_done_is_named(whole: pd.DataFrame, tmp_path: Path, status: str) -> None:
    whole.loc[[3, 9], "status"] = status
    save(whole, tmp_path / "x.csv")
    cell = "2 rows of runs that are not done, the first seed=0 lora.ratio=16 optim.lr=0.002"
    with pytest.raises(UserError, match=re.escape(cell)):
        load_results(NAME, path=tmp_path / "x.csv")


def test_a_diverged_run_is_done(whole: pd.DataFrame, tmp_path: Path) -> None:
    whole.loc[3, ["status", "validation/loss"]] = ["diverged", None]
    save(whole, tmp_path / "x.csv")
    assert load_results(NAME, path=tmp_path / "x.csv")["validation/loss"].isna().sum() == 1


def test_fresh_seeds_must_be_those_of_what_the_csvs_own_grid_selects(whole: pd.DataFrame, tmp_path: Path) -> None:
    higher = (whole["stage"] == "grid") & (whole["lora.ratio"] == 16)
    whole.loc[higher, "validation/loss"] = 1 - whole.loc[higher, "optim.lr"]  # now the other rate is the better one
    save(whole, tmp_path / "x.csv")
    with pytest.raises(UserError, match=r"no row for seed=100 lora.ratio=16 optim.lr=0.002 \(2 of 4 runs have none\)"):
        load_results(NAME, path=tmp_path / "x.csv")


def test_an_axis_may_have_text_beside_numbers(whole: pd.DataFrame, root: Path, tmp_path: Path) -> None:
    sweep = root / "sweeps" / f"{NAME}.yaml"
    arms = 'params:\n      optim.head_lr: [4.0e-3, "\\\\${optim.lr}"]\n      seed'
    text = sweep.read_text().replace("params:\n      seed", arms)
    sweep.write_text(text.replace("[lora.ratio]", "[lora.ratio, optim.head_lr]"))
    rows = [whole.assign(**{"optim.head_lr": rate}) for rate in ("0.004", "${optim.lr}")]
    both = pd.concat(rows, ignore_index=True)[["stage", "optim.head_lr", *whole.columns[1:]]]
    both["hash"] = [f"{at:010d}" for at in range(len(both))]
    save(both, tmp_path / "x.csv")
    assert len(load_results(NAME, path=tmp_path / "x.csv")) == 24
    for at in (0, 12, 8, 20):
        save(both.drop(index=at), tmp_path / "x.csv")
        with pytest.raises(UserError, match=r"no row for .*optim\.head_lr="):
            load_results(NAME, path=tmp_path / "x.csv")


def test_an_axis_of_lists_mappings_and_nulls_comes_back_as_the_sweep_has_it(root: Path, tmp_path: Path) -> None:
    """In the CSV a list is its items, a mapping its pairs, and null or a missing axis is empty; runs stay distinct."""
    sweep = root / "sweeps" / f"{NAME}.yaml"
    text = sweep.read_text().replace("seed: [0, 1]", "seed: [0, 1]\n      task.train_rows: [100, null]")
    one, other = "{lora.ratio: 1,", "{lora.ratio: 16,"
    text = text.replace(one, "{lora.targets: [[q]],").replace(
        other, "{lora.targets: [[q, v]], lora.rank_pattern: [{v: 4, q: 2}],"
    )
    sweep.write_text(text.replace("by: [lora.ratio]", "by: [lora.targets, task.train_rows]"))
    cells = [("q", None, 0.001, 0.004), ("q,v", "v:4,q:2", 0.0005, 0.002)]
    rows: list[tuple[object, ...]] = []
    for size in (100, None):
        for targets, pattern, best, worse in cells:
            first = [("grid", seed, size, targets, rate, pattern) for seed in (0, 1) for rate in (best, worse)]
            rows += [*first, *(("confirm", seed, size, targets, best, pattern) for seed in (100, 101))]
    names = ["stage", "seed", "task.train_rows", "lora.targets", "optim.lr", "lora.rank_pattern"]
    frame = pd.DataFrame(rows, columns=names)
    frame["status"], frame["validation/loss"] = "success", frame["optim.lr"] + 0.5
    frame = frame.assign(hash=[f"{at:010d}" for at in range(len(frame))], commit="c", diff=None)
    tuples = frame["lora.targets"].str.split(",").map(tuple)  # as in loralab.sweeps.collect.table
    save(frame.assign(**{"lora.targets": tuples}), tmp_path / "x.csv")
    found = load_results(NAME, path=tmp_path / "x.csv")
    assert found["lora.targets"].tolist() == frame["lora.targets"].tolist()
    assert found["lora.rank_pattern"].dropna().unique().tolist() == ["v:4,q:2"]
    for at, cell in ((7, r"train_rows=100 lora\.targets=\[q,v\]"), (17, r"train_rows=null lora\.targets=\[q\]")):
        save(frame.drop(index=at), tmp_path / "x.csv")
        with pytest.raises(UserError, match=rf"no row for .*task\.{cell} .*\(1 of "):
            load_results(NAME, path=tmp_path / "x.csv")


def test_a_csv_that_is_not_there_or_of_another_kind_is_told(whole: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"x\.csv is not there; `loralab study {NAME}` makes it"):
        load_results(NAME, path=tmp_path / "x.csv")
    save(whole.drop(columns="hash"), tmp_path / "x.csv")
    with pytest.raises(UserError, match=rf"has no column 'hash', .*; `loralab collect {NAME}` writes it again"):
        load_results(NAME, path=tmp_path / "x.csv")
    with pytest.raises(UserError, match=f"no study is called 'nothing'; sweeps/ has {NAME}"):
        load_results("nothing")


def test_only_the_whole_study_is_saved_where_its_figure_is_drawn_from(root: Path, tmp_path: Path) -> None:
    assert target(NAME, (), tmp_path) == root / "analysis" / "results" / f"{NAME}.csv"
    assert target(NAME, ("seed=0", "model.path=a/b"), tmp_path) == (tmp_path / "results" / f"{NAME}-832cfbf5f0.csv")
    assert target(NAME, (), tmp_path, stem="mine") == tmp_path / "results" / "mine.csv"


@pytest.mark.parametrize("stem", ["", "a/b", "..", "a b", ".hidden", "x" * 201])
def test_a_name_that_is_no_files_name_is_told(stem: str, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^--name: got .*; it is a file's name without its ending: letters, digits and"
    ):
        target(NAME, ("seed=0",), tmp_path, stem=stem)


def test_however_many_settings_there_are_the_file_has_a_name_of_its_own(tmp_path: Path) -> None:
    some, others = (target(NAME, [f"lora.alpha={i}" for i in range(first, 50)], tmp_path) for first in (0, 1))
    assert some != others
    for path in (some, others):
        save(pd.DataFrame({"a": [1]}), path)
        assert path.is_file() and path.name.startswith(NAME)


def test_a_saved_table_keeps_ten_digits_and_what_is_missing_is_empty(tmp_path: Path) -> None:
    save(pd.DataFrame({"started": [1790000000.25, None], "loss": [1 / 3, 2e-7], "seed": [1, 2]}), tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == "started,loss,seed\n1790000000,0.3333333333,1\n,2e-07,2\n"


def test_a_folder_is_no_place_for_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"--to: .* is a directory; name a file"):
        save(pd.read_csv(io.StringIO("a\n1\n")), tmp_path)


def test_text_that_a_spreadsheet_would_run_is_inert_in_the_file_and_itself_when_loaded(tmp_path: Path) -> None:
    texts = [
        *["=1+1", "+cmd", "-2+3|x", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''+a", "-", "=", '="a,b"'],
        *["plain", "-1", "+1e-05", "-inf", "it's", "a\r=1", "'quoted'", "", None],
    ]
    frame = pd.DataFrame({"=error": texts, "loss": [-0.5] * len(texts)})
    save(frame, tmp_path / "x.csv")
    with (tmp_path / "x.csv").open(newline="") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    assert not [
        cell for cell in cells if re.match(r"[=+\-@\t\r]", cell) and not re.fullmatch(r"[-+][\de.-]+|-inf", cell)
    ]
    assert cells[0] == "'=error" and cells[2] == "'=1+1" and cells.count("-0.5") == len(texts)
    found = results._read("x", tmp_path / "x.csv")
    assert found.columns.tolist() == ["=error", "loss"] and set(found["loss"]) == {-0.5}
    assert found["=error"].dropna().tolist() == texts[:-2]


def test_numbers_beside_null_are_written_as_they_are_once_they_were_loaded(tmp_path: Path) -> None:
    save(pd.DataFrame({"optim.clip": pd.Series([None, 1.0, 0.5], dtype=object)}), tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == 'optim.clip\n""\n1\n0.5\n'


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "analysis" / "results").glob("*.csv")), ids=lambda path: path.stem
)
def test_a_committed_table_is_the_same_when_it_is_written_again(path: Path, tmp_path: Path) -> None:
    save(results._read(path.stem, path), tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == path.read_bytes()


def test_a_task_has_the_name_of_its_own_file_in_a_csv(tmp_path: Path) -> None:
    own = config(tmp_path, "task=local", "task.files.train=some/reviews.csv", "task.text=[text]", "task.label=label")
    assert plain(own.task) == "reviews" and plain(own.model) == "tiny"
    own.task.title = "film reviews"
    assert plain(own.task) == "film reviews"
    assert plain(config(tmp_path, "task=trec").task) == "trec"
