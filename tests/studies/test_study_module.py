"""An analysis needs only `draw`; a mistake in it is reported in one line before training starts."""

from pathlib import Path

import pandas as pd
import pytest

from loralab.cli.main import main
from loralab.errors import UserError
from loralab.studies import figures, results, study_module
from loralab.studies.report import section
from loralab.studies.results import reduce_study
from loralab.studies.study_module import load_module
from loralab.sweeps.study import folder, open_study
from tests.cli.test_main import said
from tests.small_studies import NAME, SETTINGS, checkout, first_stage, train

DRAW = """
def draw(frame):
    import matplotlib.pyplot as plt
    figure, ax = plt.subplots()
    ax.plot(frame["lora.ratio"], frame["validation/loss"], "o")
    return figure
"""
REDUCER = (
    DRAW
    + """
def reduce(tables):
    return tables.runs.groupby("lora.ratio", as_index=False)["validation/loss"].mean()
"""
)
THREE_LINES = """\
hydra:
  sweeper:
    params: {lora.ratio: [1, 16], seed: [0, 1]}
"""
MEASURED = "hydra: {sweeper: {study: {program: analysis/two_stages.py}}}\n"
PROGRAM = (
    DRAW
    + """
KEYS, KEPT = ["n"], ["n", "commit", "diff"]
def wanted(smoke): ...
def measure(smoke): ...
"""
)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with only the study of two stages."""
    found = checkout(tmp_path / "checkout", monkeypatch)
    (found / "analysis").mkdir()
    return found


@pytest.fixture
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return first_stage(tmp_path_factory)


def test_three_lines_of_yaml_and_a_function_that_draws_make_a_study(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "sweeps" / "mine.yaml").write_text(THREE_LINES)
    (root / "analysis" / "mine.py").write_text(DRAW)
    store = tmp_path / "store"
    with open_study("mine", SETTINGS, store=store) as study:
        train(study)
    capsys.readouterr()
    for command in ("collect", "figure"):
        assert main([command, "mine", *SETTINGS, "--store", str(store)]) == 0
    csv = results.target("mine", SETTINGS, store)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"4 runs (4 success) in {csv}"
    assert [Path(line).suffix for line in lines[-3:]] == [".png", ".pdf", ".txt"]
    frame, module = results.load_results("mine", *SETTINGS, path=csv), load_module("mine")
    assert "lora.ratio" in frame and module.questions(frame) == []
    assert module.caption(frame).startswith("2 seeds. 4 runs (0 diverged), code ")
    means = module.summary(frame)
    assert means["runs"].tolist() == [2, 2] and means.index.tolist() == [1, 16]
    one = frame.loc[frame["lora.ratio"] == 1, "validation/loss"].mean()
    assert means["validation/loss"].tolist()[0] == pytest.approx(one, abs=1e-4)
    header = {"command": "loralab study mine", "cost": "4 runs"}
    found = section("mine", frame, module, questions=[], csv=csv.read_text(), header=header)
    assert found.table.columns[:2] == ("lora.ratio", "runs")
    with open_study("mine") as study:
        assert study.header == header


def test_a_study_whose_file_has_no_smoke_size_has_a_tiny_one(root: Path, tmp_path: Path) -> None:
    (root / "sweeps" / "mine.yaml").write_text(THREE_LINES)
    with open_study("mine", ["smoke=true", "tracker=none"], store=tmp_path) as study:
        configs = [study.planned(job).config for job in study.grid]
    assert len(configs) == 4 and {(c.model.name, c.train.steps, c.task.train_rows) for c in configs} == {
        ("tiny", 4, 64)
    }


def test_a_study_can_be_drawn_by_the_analysis_of_another(done: Path, root: Path) -> None:
    (root / "analysis" / "shared.py").write_text(REDUCER)
    sweep = root / "sweeps" / f"{NAME}.yaml"
    sweep.write_text(sweep.read_text().replace("    study:\n", "    study:\n      analysis: shared\n"))
    with open_study(NAME, SETTINGS, store=done) as study:
        assert reduce_study(study)["lora.ratio"].tolist() == [1, 16]


def test_the_summary_of_rows_that_are_no_runs_is_the_rows_without_their_origin(root: Path) -> None:
    (root / "analysis" / f"{NAME}.py").write_text(DRAW)
    frame = pd.DataFrame({"n": [1, 2], "cpu": [0.1, 0.2], "commit": "c", "diff": None})
    assert list(load_module(NAME).summary(frame)) == ["n", "cpu"]


def test_a_diverged_run_leaves_its_setting_without_a_mean(root: Path) -> None:
    (root / "analysis" / f"{NAME}.py").write_text(DRAW)
    rows = [("grid", 1, 0, 0.5), ("grid", 1, 1, None), ("grid", 4, 0, 0.5), ("grid", 4, 1, 0.7)]
    frame = pd.DataFrame(rows, columns=["stage", "lora.ratio", "seed", "test/loss"])
    frame.insert(3, "status", ["success", "diverged", "success", "success"])
    found = load_module(NAME).summary(frame)
    assert found["runs"].tolist() == [2, 2] and found["test/loss"].isna().tolist() == [True, False]


WRONG = {
    "def draw(frame:\n": "analysis/two_stages.py, line 1: '(' was never closed",
    "x = 1\n": "analysis/two_stages.py: defines no draw(frame), which returns the figure",
    "draw = 3\n": "analysis/two_stages.py: draw is 3; it must be a function draw(frame)",
    "def draw():\n    ...\n": "analysis/two_stages.py: draw() must take one argument: draw(frame)",
    "def draw(frame, ax):\n    ...\n": "analysis/two_stages.py: draw(frame, ax) must take one argument: draw(frame)",
    DRAW + "def reduce():\n    ...\n": "analysis/two_stages.py: reduce() must take one argument: reduce(tables)",
    DRAW + "def questions():\n    ...\n": "analysis/two_stages.py: questions() must take one argument: questions",
    DRAW + "AXES = 'seed'\n": "AXES is 'seed'; it must be a list of keys of the configuration, as lora.rank",
    DRAW + "AXES = ['lora.ratios']\n": "AXES: lora.ratios: no such key; lora has ",
    "import nothing_of_this_name\n": (
        "analysis/two_stages.py cannot be imported: ModuleNotFoundError: No module named 'nothing_of_this_name' "
        "(analysis/two_stages.py, line 1)"
    ),
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_with_an_analysis_is_one_line_and_nothing_is_trained(
    text: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loralab.cli.studies.exit_status", None)  # train.py is a process
    (root / "analysis" / f"{NAME}.py").write_text(text)
    for command in ("study", "figure", "collect"):
        status, out, err = said(capsys, command, NAME, "--store", str(tmp_path / "store"))
        assert (status, out, err.count("\n")) == (2, "", 1), err
        assert err.startswith("error: ") and WRONG[text] in err
    assert not (tmp_path / "store").exists()


def test_a_study_without_an_analysis_is_refused_before_it_trains_unless_its_file_says_none(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loralab.cli.studies.exit_status", None)
    status, _, err = said(capsys, "study", NAME, "--store", str(tmp_path / "store"))
    assert status == 2 and f"study '{NAME}' has no analysis/{NAME}.py, which draws its figure" in err
    sweep = folder() / f"{NAME}.yaml"
    sweep.write_text(sweep.read_text().replace("    study:\n", "    study:\n      analysis: none\n"))
    with pytest.raises(UserError, match=f"has no figure: sweeps/{NAME}.yaml says `analysis: none`"):
        figures.draw(NAME)
    with pytest.raises(TypeError, match="not callable"):  # training starts
        main(["study", NAME, "--store", str(tmp_path / "store")])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (DRAW, "lacks KEYS, KEPT, wanted(smoke), measure(smoke); a measured study must define KEYS, KEPT, wanted"),
        (PROGRAM.replace("def measure", "def measured"), "lacks measure(smoke); a measured study must define"),
        (PROGRAM.replace("wanted(smoke)", "wanted()"), "wanted() must take one argument: wanted(smoke)"),
        (
            PROGRAM.replace(', "commit", "diff"', ""),
            "KEPT: got n; it must contain all of KEYS and end with commit, diff",
        ),
    ],
)
def test_what_a_measured_study_lacks_is_one_line(
    text: str, line: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "sweeps" / f"{NAME}.yaml").write_text(MEASURED)
    (root / "analysis" / f"{NAME}.py").write_text(text)
    status, out, err = said(capsys, "study", NAME, "--store", str(tmp_path))
    assert (status, out, err.count("\n")) == (2, "", 1) and f"analysis/{NAME}.py: {line}" in err


def test_a_failure_names_the_line_of_the_analysis_that_it_is_from(root: Path) -> None:
    (root / "analysis" / f"{NAME}.py").write_text("def draw(frame):\n    return frame['x']\n")
    with pytest.raises(KeyError) as error:
        load_module(NAME).draw(pd.DataFrame())
    assert study_module.explain_failure(error.value) == f"KeyError: 'x' (analysis/{NAME}.py, line 2)"
    assert study_module.explain_failure(ValueError()) == "ValueError"
    assert study_module.explain_failure(UserError("one line")) == "one line"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("hydra: {sweeper: {params: {lora.ratio: [1, 4]\n", "sweeps/two_stages.yaml, line 2: "),
        ("hydra: {sweeper: {parms: {lora.ratio: [1, 4]}}}\n", "hydra.sweeper.parms: Hydra has no such key"),
        ("hydra: {sweeper: {params: {lora.ratios: [1, 4]}}}\n", "lora.ratios: no such key; lora has "),
    ],
)
def test_what_is_wrong_with_a_sweep_is_one_line(
    text: str, line: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "sweeps" / f"{NAME}.yaml").write_text(text)
    status, out, err = said(capsys, "status", NAME, "--store", str(tmp_path))
    assert (status, out, err.count("\n")) == (2, "", 1) and err.startswith(f"error: {line}")
