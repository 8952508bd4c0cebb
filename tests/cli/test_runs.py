"""The list of runs and a run's page: every state has a line."""

import csv
import io
import json
import multiprocessing
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from loralab.cli.main import main
from loralab.cli.runs import listing as lines_of
from loralab.cli.runs import shown
from loralab.errors import UserError
from loralab.runs.rows import rows_of
from loralab.runs.run import run
from loralab.store.labels import Labels, label
from loralab.store.record import Record
from loralab.store.run_directory import RunDirectory, record_of, status
from tests.small_runs import config
from tests.store.records import record


def unfinished(store: Path, name: str = "tiny-x-0123456789", step: int | None = None) -> RunDirectory:
    """The directory of a run whose process was killed."""
    run = RunDirectory(store / "runs" / name)
    run.begin(OmegaConf.to_yaml(OmegaConf.structured(config(store))))
    if step is not None:
        lines = [{"step": s, "split": "train", "values": {"loss": 1.0}} for s in range(1, step + 1)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (run.path / "metrics.jsonl").write_text(text + '{"step": 9')  # the last line is truncated
    return run


def failed(store: Path) -> RunDirectory:
    """A run that ended in an exception, with the record that `run` writes."""
    run = unfinished(store, "tiny-x-fa11ed0000")
    record = {"status": "failed", "error": "Traceback\nRuntimeError: out of luck\n", "metrics": None}
    origin = {"git": {"commit": None, "diff": None}, "versions": {"python": "3", "torch": "2", "transformers": "5"}}
    run.finish({**record, **origin, "started": 1.0, "ended": 2.0, "config": {}, "name": run.path.name})
    return run


def listing(store: Path) -> list[str]:
    """The lines of `loralab runs`, without the first, which says what the runs have in common."""
    lines = lines_of(store, rows_of(store))
    return lines[1:] if lines[0].split()[0].isdigit() else lines


def done(run: RunDirectory) -> Record:
    """The record of a finished run."""
    record = run.finished()
    assert record is not None
    return record


def _hold(run: RunDirectory, held: Any) -> None:
    with run.hold(wait=False):
        held.set()
        time.sleep(60)


def test_an_empty_store_says_how_to_make_a_run(tmp_path: Path) -> None:
    assert listing(tmp_path) == [f"no runs in {tmp_path / 'runs'}; `python train.py` makes one"]


def test_a_finished_run_has_its_figures_at_the_last_step(finished: RunDirectory) -> None:
    header, line = listing(finished.path.parent.parent)
    scores = ["validation/accuracy", "test/accuracy", "validation/loss"]
    assert header.split() == ["run", "status", *scores, "seconds", "when"]
    metrics = done(finished)["metrics"]
    values = [f"{metrics[key.split('/')[0]]['last'][key.split('/')[1]]:.4f}" for key in scores]
    assert line.split()[:5] == [finished.hash, "success", *values]


def test_every_state_has_its_word_and_the_latest_is_last(tmp_path: Path, finished: RunDirectory) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / finished.path.name).symlink_to(finished.path)  # ended before the others were made
    cut = unfinished(tmp_path, step=7)
    fell = failed(tmp_path)
    assert status(finished) == "success"
    assert status(cut) == "cut off at step 7"
    assert status(unfinished(tmp_path, "tiny-x-0000000000")) == "cut off at step 0"
    assert status(fell) == "failed"
    names = [line.split()[0] for line in listing(tmp_path)[1:]]
    assert names[0] == finished.hash
    assert len(names) == 4


def test_a_damaged_record_hides_no_other_run(tmp_path: Path, finished: RunDirectory) -> None:
    for name in ("whole-0000000001", "cut-0000000002"):
        shutil.copytree(finished.path, tmp_path / "runs" / name)
    (tmp_path / "runs" / "cut-0000000002" / "record.json").write_text('{"status": ')
    _, *lines, why = listing(tmp_path)
    states = {line.split()[0]: line.split()[1] for line in lines}
    assert states == {"0000000001": "success", "0000000002": "damaged"}
    assert why.startswith(f"{tmp_path}/runs/cut-0000000002/record.json is damaged (")


def _record(run: RunDirectory, **changes: Any) -> None:
    (run.path / "record.json").write_text(json.dumps(record("success", **changes)))


DAMAGES: dict[str, Callable[[RunDirectory], object]] = {
    "no metrics": lambda run: _record(run, metrics=None),
    "a time out of range": lambda run: _record(run, ended=1e20),
    "a directory for a record": lambda run: (run.path / "record.json").mkdir(),
    "a FIFO for a record": lambda run: os.mkfifo(run.path / "record.json"),
    "a loop of links for a record": lambda run: (run.path / "record.json").symlink_to("record.json"),
    "brackets in brackets": lambda run: (run.path / "record.json").write_text("[" * 200_000),
    "metrics without UTF-8": lambda run: (run.path / "metrics.jsonl").write_bytes(b"\xff\xfe\n"),
    "metrics that are no objects": lambda run: (run.path / "metrics.jsonl").write_text("3\n"),
    "a FIFO for metrics": lambda run: os.mkfifo(run.path / "metrics.jsonl"),
    "a directory for metrics": lambda run: (run.path / "metrics.jsonl").mkdir(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_run_is_listed_with_its_reason_and_hides_no_other(
    tmp_path: Path, finished: RunDirectory, damage: Callable[[RunDirectory], object]
) -> None:
    shutil.copytree(finished.path, tmp_path / "runs" / finished.path.name)
    run = unfinished(tmp_path)
    damage(run)
    _, *lines, why = listing(tmp_path)
    states = {line.split()[0]: line.split()[1] for line in lines}
    assert states == {run.hash: "damaged", finished.hash: "success"}
    assert why.startswith(f"{run.path}/") and ("damaged (" in why or "cannot be read (" in why)


@pytest.mark.parametrize("text", ["- a list\n", "{", "\x00"])
def test_runs_are_listed_whatever_their_config_says(tmp_path: Path, text: str) -> None:
    (unfinished(tmp_path).path / "config.yaml").write_text(text)
    assert [line.split()[1] for line in listing(tmp_path)[1:]] == ["cut"]


def test_a_run_whose_lock_is_held_is_running(tmp_path: Path) -> None:
    run = unfinished(tmp_path, step=3)
    context = multiprocessing.get_context("fork")
    held = context.Event()
    holder = context.Process(target=_hold, args=(run, held))
    holder.start()
    try:
        assert held.wait(10)
        assert status(run) == "running, step 3"
    finally:
        holder.kill()
        holder.join()
    assert status(run) == "cut off at step 3"


def test_a_diverged_run_without_scores_has_dashes(tmp_path: Path, finished: RunDirectory) -> None:
    run = unfinished(tmp_path)
    metrics = {"primary": "accuracy", "validation": {"best": None, "last": None}}
    run.finish({**record_of(finished), "status": "diverged", "metrics": metrics})
    assert listing(tmp_path)[1].split()[1:4] == ["diverged", "-", "-"]
    assert any(line.startswith("diverged at step") for line in shown(run))


def test_a_runs_page_has_command_figures_groups_origin_and_files(finished: RunDirectory) -> None:
    record = done(finished)
    page = "\n".join(shown(finished))
    assert re.search(r"^λ 4, s λ 4, lr_A \S+ \(the rate law.s\)$", page, re.MULTILINE)
    assert page.startswith(f"{finished.path.name}\npython train.py model=tiny ")
    for expected in ("success", "weight decay", "CPU threads: 1", "torch ", "adapter/adapter_model.safetensors"):
        assert expected in page
    assert f"{record['metrics']['test']['best']['accuracy']:.4f}" in page


def test_pages_of_runs_without_figures(tmp_path: Path) -> None:
    assert "cut off at step 4" in shown(unfinished(tmp_path, step=4))
    page = shown(failed(tmp_path))
    assert "failed" in page and "RuntimeError: out of luck" in page and any("no git checkout" in line for line in page)


def test_a_run_without_a_record_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no record yet \(cut off at step 2\)"):
        record_of(unfinished(tmp_path, step=2))


def test_a_paused_run_is_listed_with_its_step_and_its_page_has_the_command_that_goes_on(tmp_path: Path) -> None:
    paused = run(config(tmp_path, "train.pause_at=7"))
    (path,) = tmp_path.glob("runs/*")
    _, line = listing(tmp_path)
    last = paused["metrics"]["validation"]["last"]
    assert line.split("  ")[1] == "paused at step 7 of 12"
    assert line.split()[7:10] == [
        f"{last['accuracy']:.4f}",
        f"{last['loss']:.4f}",
        f"{paused['timing']['seconds']:.1f}",
    ]
    page = shown(RunDirectory(path))
    assert page[1].startswith("python train.py ") and "pause_at" not in page[1]
    assert page[3].startswith(f"paused at step 7 of 12 (validation loss {last['loss']:.4f}); the same command without ")


@pytest.fixture
def several(tmp_path: Path, finished: RunDirectory) -> Path:
    """A store with four runs that differ in ratio, rate and score; the last has labels."""
    for number, (ratio, lr, accuracy) in enumerate([(1, 2e-3, 0.7), (4, 1e-3, 0.9), (4, 2e-3, 0.8), (16, 1e-3, 0.5)]):
        run = RunDirectory(tmp_path / "runs" / f"tiny-rotten_tomatoes-lora-r8-x{ratio}-s0-{number:010}")
        shutil.copytree(finished.path, run.path)
        made = json.loads((run.path / "record.json").read_text())
        made["config"]["lora"]["ratio"], made["config"]["optim"]["lr"] = ratio, lr
        made["metrics"]["test"]["last"]["accuracy"], made["ended"] = accuracy, number
        (run.path / "record.json").write_text(json.dumps(made))
    label(run.path, Labels("best", ("paper", "old")))
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        status = main(arguments)
    except SystemExit as end:
        status = int(end.code or 0)
    return status, *capsys.readouterr()


def test_what_differs_is_a_column_and_what_does_not_is_said_once(several: Path) -> None:
    first, header, *lines = lines_of(several, rows_of(several))
    assert first == f"4 runs in {several}/runs; all: model=tiny task=rotten_tomatoes method=lora lora.rank=8 seed=0"
    assert header.split()[:6] == ["run", "name", "tags", "status", "ratio", "lr"]
    assert [line.split()[-8:-6] for line in lines] == [["1", "0.002"], ["4", "0.001"], ["4", "0.002"], ["16", "0.001"]]
    assert lines[-1].split()[:4] == ["0000000003", "best", "paper,old", "success"]


def test_in_a_narrow_terminal_the_scores_stay_and_the_rest_is_named(several: Path) -> None:
    full = lines_of(several, rows_of(several))[1:]
    for width in range(10, 200, 10):
        lines = lines_of(several, rows_of(several), width=width)[1:]
        assert "test/accuracy" in lines[0]
        if width >= 80:
            assert max(map(len, lines[:5])) <= width
        if lines[0] != full[0]:
            assert lines[5].startswith("no room for ")


def test_runs_are_chosen_sorted_and_cut(several: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def hashes(*arguments: str) -> list[int]:
        status, out, _ = said(capsys, "runs", "--store", str(several), "--json", *arguments)
        return [int(each["hash"]) for each in json.loads(out)] if status == 0 else [status]

    assert hashes() == [0, 1, 2, 3] and hashes("--limit", "2") == [2, 3]
    assert hashes("--sort", "test/accuracy") == [1, 2, 0, 3]
    assert hashes("--sort", "test/accuracy", "--reverse", "--limit", "1") == [3]
    assert hashes("--where", "lora.ratio=4", "--where", "lr<0.002") == [1]
    assert hashes("--where", "tags=paper") == [3]


def test_json_and_csv_have_every_score_and_what_differs(several: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = json.loads(said(capsys, "runs", "--store", str(several), "--json")[1])[0]
    assert first["settings"]["lora.ratio"] == 1 and first["scores"]["test/accuracy"] == 0.7
    assert first["path"] == str(several / "runs" / first["run"])
    rows = list(csv.DictReader(io.StringIO(said(capsys, "runs", "--store", str(several), "--csv")[1])))
    assert [row["lora.ratio"] for row in rows] == ["1", "4", "4", "16"] and rows[3]["tags"] == "paper,old"
    assert {"best/test/loss", "optim.lr", "model", "seconds"} <= rows[0].keys()


def test_where_no_run_is_left_it_says_what_there_is(several: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ("--store", str(several))
    line = "no run has lora.ratio=3; lora.ratio is 1, 4, 16 there\n"
    assert said(capsys, "runs", *store, "--where", "ratio=3") == (0, "", line)
    assert said(capsys, "runs", *store, "--where", "ratio=3", "--json") == (0, "[]\n", line)
    assert said(capsys, "rm", *store, "--where", "ratio=3") == (2, "", f"error: {line}")
    assert "got '0'; it must be a whole number, at least 1" in said(capsys, "runs", *store, "--limit", "0")[2]


def test_a_run_goes_by_the_name_that_it_was_given(several: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = said(capsys, "show", "best", "--store", str(several))
    assert status == 0 and out.startswith("tiny-rotten_tomatoes-lora-r8-x16-s0-0000000003\nbest  #paper  #old\n")


def test_rm_names_what_it_removes_and_a_dry_run_removes_nothing(
    several: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, names = ("--store", str(several)), sorted(path.name for path in (several / "runs").iterdir())
    status, out, _ = said(capsys, "rm", "0000000000", "best", "--dry-run", *store)
    assert status == 0 and out.startswith(f"would remove {names[0]} (success, 0.") and "none removed yet" in out
    assert len(list((several / "runs").iterdir())) == 4
    status, out, _ = said(capsys, "rm", "--where", "lora.ratio=4", "best", *store)
    assert status == 0 and [path.name for path in (several / "runs").iterdir()] == [names[0]]
    assert all(f"removed {name} (success" in out for name in names[1:])


def test_rm_removes_none_while_one_is_in_progress_and_nothing_outside_of_the_store(
    several: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, runs = ("--store", str(several)), sorted((several / "runs").iterdir())
    with RunDirectory(runs[3]).hold(wait=False):
        status, out, err = said(capsys, "rm", "--where", "status=success", "0000000003", *store)
    assert (status, out) == (2, "") and "is in progress" in err and sorted((several / "runs").iterdir()) == runs
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("a: 1")
    status, out, err = said(capsys, "rm", str(tmp_path / "conf"), *store)
    assert status == 2 and "is not a run of" in err and (tmp_path / "conf" / "config.yaml").exists()
    assert "rm: name a run, or choose some" in said(capsys, "rm", *store)[2]
