"""The report agrees with the CSV and the questions, names a mistake in one line, and is the same each time."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from loralab.cli.main import main
from loralab.errors import UserError
from loralab.studies import results
from loralab.studies.committed import questions
from loralab.studies.questions import value_text
from loralab.studies.report import report
from tests.reported import MARKUP, ROWS, Parsed, finished, reported
from tests.small_studies import NAME


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkout with the finished study; the store has one of its runs."""
    with pytest.MonkeyPatch.context() as patch:
        folder = reported(tmp_path_factory.mktemp("report") / "checkout", patch)
        run = folder / "store" / "runs" / "tiny-trec-0000000003"
        run.mkdir(parents=True)
        (run / "metrics.jsonl").write_text("")
        yield folder


@pytest.fixture(scope="module")
def written(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("html") / "sub" / "mine.html"
    assert report([NAME, NAME], to, store=root / "store") == {}
    return to


@pytest.fixture(scope="module")
def parsed(written: Path) -> Parsed:
    return Parsed(written.read_text(encoding="utf-8"))


def test_a_report_tells_the_hypothesis_the_figure_the_table_the_origin_and_the_command(parsed: Parsed) -> None:
    assert f"Hypothesis, from sweeps/{NAME}.yaml {MARKUP} A ratio of 16 reaches a lower loss." in parsed.text
    assert f"Figure 1. Validation loss {MARKUP} against lr_A. 12 runs, code abcdef0." in parsed.text
    for fact in (f"python train.py sweeps={NAME}", f"loralab study {NAME}", "12 runs, seconds", "validation/loss"):
        assert fact in parsed.text
    assert "Runs 12 Status success Code 9 commit cccccccccc" in parsed.text
    assert "Threads a run 1" in parsed.text
    assert len(parsed.all("section")) == 1  # a study that is named twice appears once
    assert parsed.all("html")[0]["lang"] == "en"
    assert all(cell["scope"] in ("row", "col") for cell in parsed.all("th"))
    assert len(parsed.all("caption")) == len(parsed.all("table")) == 3


def test_verdicts_are_those_of_the_questions_and_the_first_is_the_answer(root: Path, parsed: Parsed) -> None:
    badges = [attributes["class"] for attributes in parsed.all("span") if "badge" in (attributes.get("class") or "")]
    assert badges == ["badge held", "badge held", "badge fell", "badge open", "badge open", "badge even"]
    first = questions(NAME)[0]
    assert f"Is it up? held up {MARKUP}: {value_text(first.claims[0].found, 'points')} ." in parsed.text
    for question in questions(NAME):
        assert f"{question.text} {question.source}" in parsed.text
        for claim, verdict in zip(question.claims, question.verdicts, strict=True):
            told = f"{claim.paper}; tested: ≥ 1 points {value_text(claim.found, 'points')}"
            assert f"{verdict} {claim.arm} {told}" in parsed.text
    assert "1 held · 1 contradicted in size · 1 equivalent · 2 not identified" in parsed.text


def test_the_figure_the_results_and_the_runs_are_files_beside_the_page(root: Path, written: Path) -> None:
    parsed, files = Parsed(written.read_text(encoding="utf-8")), written.with_name("mine_files")
    assert {path.name for path in files.iterdir()} == {f"{NAME}.{kind}" for kind in ("svg", "csv", "html")}
    (image,) = parsed.all("img")
    assert image["src"] == f"mine_files/{NAME}.svg" and int(image["width"] or 0) > 600
    assert (files / f"{NAME}.csv").read_bytes() == (root / "analysis" / "results" / f"{NAME}.csv").read_bytes()
    (link,) = [each for each in parsed.all("a") if "download" in each]
    assert (link["href"], link["download"]) == (f"mine_files/{NAME}.csv", f"{NAME}.csv")
    assert f'href="../mine.html#{NAME}"' in (files / f"{NAME}.html").read_text(encoding="utf-8")


def test_every_run_has_its_settings_scores_curve_and_command(root: Path, written: Path) -> None:
    runs = Parsed((written.with_name("mine_files") / f"{NAME}.html").read_text(encoding="utf-8"))
    start = f"python train.py sweeps={NAME} hydra.mode=RUN"
    for at, (stage, seed, ratio, rate) in enumerate(ROWS):
        cells = f"{at:010x} {stage} {seed} {ratio} {rate:g} success {rate + 0.5:.4f}"
        assert f"{cells} Train it again {start} lora.ratio={ratio} optim.lr={rate:g} seed={seed} store=" in runs.text
    own = root / "store" / "runs" / "tiny-trec-0000000003"
    assert runs.text.count(f"Curve {own}/metrics.jsonl ; loralab curves {own} draws it") == 1
    assert runs.text.count("not in the store that this report was written from") == 11


def test_the_same_results_give_the_same_files(root: Path, written: Path, tmp_path: Path) -> None:
    report(["all"], tmp_path / "mine.html", store=root / "store")
    for path in [written, *written.with_name("mine_files").iterdir()]:
        assert (tmp_path / path.relative_to(written.parent)).read_bytes() == path.read_bytes()


def test_settings_name_the_study_that_they_made(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With their CSV in the store, their commands, and no questions where these runs cannot answer them."""
    analysis, store = root / "analysis" / f"{NAME}.py", tmp_path / "store"
    text = analysis.read_text()
    rows = finished().query("seed != 1")
    path = results.target(NAME, ["seed=0"], store)
    results.save(rows, path)
    assert main(["report", NAME, "seed=0", f"store={store}"]) == 0
    page = Parsed((store / "report.html").read_text(encoding="utf-8"))
    assert capsys.readouterr().out == f"{store / 'report.html'}\n"
    assert f"loralab study {NAME} seed=0 --store {store}" in page.text and "Cost 8 runs" in page.text
    assert f"report_files/{path.stem}.svg" in [image["src"] for image in page.all("img")]
    assert "Is it up?" in page.text
    runs = Parsed((store / "report_files" / f"{path.stem}.html").read_text(encoding="utf-8"))
    assert f"lora.ratio=16 optim.lr=0.0005 seed=100 store={store}" in runs.text
    try:
        analysis.write_text(text.replace("def questions(frame):", "def questions(frame):\n    frame['gone']"))
        report([NAME], tmp_path / "x.html", ["seed=0"], store=store)
    finally:
        analysis.write_text(text)
    page = Parsed((tmp_path / "x.html").read_text(encoding="utf-8"))
    assert re.search(rf"do not answer the study's questions: KeyError: 'gone' \(analysis/{NAME}\.py, line", page.text)


def test_a_mistake_is_told_and_nothing_is_written(root: Path, tmp_path: Path) -> None:
    to, store = tmp_path / "report.html", tmp_path / "store"
    with pytest.raises(UserError, match=r"is a directory; name a file"):
        report([NAME], tmp_path)
    with pytest.raises(UserError, match=r"nothing"):
        report([NAME, "nothing"], to)
    with pytest.raises(UserError, match=r"report all: got seed=0; name the study"):
        report(["all"], to, ["seed=0"])
    with pytest.raises(UserError, match=rf"`loralab study {NAME} seed=0` makes it"):
        report([NAME], to, ["seed=0"], store=store)
    (tmp_path / "report_files").write_text("")
    with pytest.raises(UserError, match=r"report_files for its figures, and that is a file; name another page"):
        report([NAME], to)
    csv = root / "analysis" / "results" / f"{NAME}.csv"
    whole = csv.read_bytes()
    try:
        results.save(finished().drop(index=3), csv)
        with pytest.raises(UserError, match=r"no row for .*lora.ratio=16"):
            report([NAME], tmp_path / "y.html")
        csv.unlink()
        with pytest.raises(UserError, match=r"no study has results"):
            report(["all"], tmp_path / "y.html")
    finally:
        csv.write_bytes(whole)
    assert not to.exists() and not (tmp_path / "y.html").exists()


def test_settings_without_a_study_are_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "task=local"]) == 2
    assert capsys.readouterr().err.startswith("error: report: got settings alone; name their study")


def test_what_a_sweep_does_not_say_of_itself_follows_from_its_grid_or_is_left_out(root: Path, tmp_path: Path) -> None:
    sweep, to = root / "sweeps" / f"{NAME}.yaml", tmp_path / "report.html"
    text = sweep.read_text()
    try:
        bare = "    study:\n      margin: 0.5 points\n"
        sweep.write_text(re.sub(r"    study:\n(      .*\n)+(?=    params)", bare, text))
        assert report([NAME], to) == {}
    finally:
        sweep.write_text(text)
    found = Parsed(to.read_text(encoding="utf-8"))
    assert f"Primary metric validation/loss Trained by loralab study {NAME} Cost 8 runs" in found.text
    assert not [attributes for attributes in found.all("p") if attributes.get("class") == "hypothesis"]
