"""The table has a row for every cell in any state, with the record's numbers."""

import json
import multiprocessing
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from loralab.errors import UserError
from loralab.runs.plan import plan
from loralab.runs.record import as_yaml, fail
from loralab.runs.run import run
from loralab.store.run_directory import RunDirectory
from loralab.sweeps.cell import Cell
from loralab.sweeps.collect import TIMING, curves, damaged, mixed_versions, table
from loralab.sweeps.selection import edges, selected
from tests.small_runs import config

BLOWN_UP = ("optim.lr=1e6", "optim.clip=null", "optim.warmup=0", "train.steps=40")
NULL = '{"step": 4, "split": "train", "values": {"loss": null}, "seconds": 0.5}\n'
STATES = ["success", "success", "diverged", "failed", "cut off", "missing", "damaged"]


def cell(store: Path, *overrides: str, **axes: Any) -> Cell:
    name = plan(config(store, *overrides)).directory.path.name
    return Cell(overrides, {key.replace("__", "."): value for key, value in axes.items()}, "grid", name)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Cell]]:
    """A store with a run in every state except running, and their cells; not to be changed."""
    store = tmp_path_factory.mktemp("store")
    cells = [
        cell(store, "lora.ratio=1", lora__ratio=1, seed=0),
        cell(store, "lora.ratio=16", lora__ratio=16, seed=0),
        cell(store, *BLOWN_UP, lora__ratio=16, seed=0, optim__clip=None),
        *(cell(store, f"seed={seed}", lora__ratio=16, seed=seed) for seed in (1, 2, 3, 4)),
    ]
    for done in cells[:3]:
        run(config(store, *done.overrides))
    fail(plan(config(store, "seed=1")), "Traceback\n  ...\nRuntimeError: out of luck\n", started=5.0)
    for cut in cells[4], cells[6]:
        directory = RunDirectory(store / "runs" / cut.run)
        directory.begin(as_yaml(config(store, *cut.overrides)))
    text = (store / "runs" / cells[0].run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (store / "runs" / cells[4].run / "metrics.jsonl").write_text("".join([*text[:3], NULL, text[4][:20]]))
    (store / "runs" / cells[6].run / "record.json").write_text('{"status": ')
    return store, cells


def record(store: Path, of: Cell) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((store / "runs" / of.run / "record.json").read_text())
    return found


def copied(store: Path, cells: Sequence[Cell], to: Path, **changes: Any) -> Path:
    """The cells' runs in the test's store, with other values in their records."""
    for each in cells:
        path = to / "runs" / each.run
        shutil.copytree(store / "runs" / each.run, path)
        (path / "record.json").write_text(json.dumps(record(store, each) | changes))
    return to


def test_every_cell_is_a_row_in_the_order_of_the_cells(sweep: tuple[Path, list[Cell]]) -> None:
    store, cells = sweep
    frame = table(store, cells)
    assert frame["status"].tolist() == STATES
    assert frame["run"].tolist() == [each.run for each in cells]
    assert frame["hash"].tolist() == [each.run[-10:] for each in cells]
    assert frame["stage"].tolist() == ["grid"] * 7
    assert table(store, cells[::-1])["status"].tolist() == STATES[::-1]


def test_the_axes_stand_between_stage_and_status(sweep: tuple[Path, list[Cell]]) -> None:
    names = list(table(*sweep).columns)
    assert names[:3] == ["run", "hash", "stage"]
    assert names[3 : names.index("status")] == ["lora.ratio", "seed", "optim.clip"]


def test_a_finished_runs_figures_are_its_records(sweep: tuple[Path, list[Cell]]) -> None:
    store, cells = sweep
    row, stored = table(store, cells).iloc[0], record(store, cells[0])
    for split in ("validation", "test"):
        for name in ("accuracy", "loss"):
            assert row[f"{split}/{name}"] == stored["metrics"][split]["last"][name]
            assert row[f"best/{split}/{name}"] == stored["metrics"][split]["best"][name]
    assert row["best/step"] == stored["metrics"]["validation"]["best"]["step"]
    lines = [json.loads(x) for x in (store / "runs" / cells[0].run / "metrics.jsonl").read_text().splitlines()]
    assert row["train/loss"] == [line for line in lines if line["split"] == "train"][-1]["values"]["loss"]
    assert row["step"] == stored["steps"] == 12
    assert [row[name] for name in TIMING] == [stored["timing"][name] for name in TIMING]
    assert (row["threads"], row["device"]) == (1, stored["device"])
    assert {key: None if pd.isna(row[key]) else row[key] for key in ("commit", "diff")} == stored["git"]
    assert (row["started"], row["ended"]) == (stored["started"], stored["ended"])


def test_what_is_missing_is_missing_and_never_zero(sweep: tuple[Path, list[Cell]]) -> None:
    frame = table(*sweep)
    numbers = [name for name in frame.columns if "/" in name] + [*TIMING, "threads"]
    unfinished = frame[~frame["status"].isin(["success", "diverged"])]
    assert len(unfinished) == 4
    assert unfinished[numbers].isna().all(axis=None)
    assert frame["started"].notna().tolist() == [True, True, True, True, False, False, False]
    assert frame["error"].notna().tolist() == [False, False, False, True, False, False, True]
    assert frame["error"][3] == "RuntimeError: out of luck"
    assert "record.json is damaged" in frame["error"][6]


def test_an_unfinished_run_says_how_far_it_came(sweep: tuple[Path, list[Cell]]) -> None:
    frame = table(*sweep)
    assert frame["step"][3:5].tolist() == [0, 4]  # the fifth line is truncated
    assert frame["step"][5:].isna().all()


def test_a_diverged_run_has_no_scores_at_its_last_step(sweep: tuple[Path, list[Cell]], tmp_path: Path) -> None:
    """It was evaluated earlier; that score is its best, not its last."""
    store, cells = sweep
    assert table(store, cells)["test/accuracy"].isna()[2]
    later = copied(store, cells[:1], tmp_path, status="diverged", steps=17)
    row = table(later, cells[:1]).iloc[0]
    assert "validation/accuracy" not in row
    assert row["best/validation/accuracy"] == record(store, cells[0])["metrics"]["validation"]["best"]["accuracy"]
    at_the_end = copied(store, cells[1:2], tmp_path, status="diverged")
    assert "validation/accuracy" not in table(at_the_end, cells[1:2]), "such a model is of no use"


def test_cells_without_any_run_have_every_column(tmp_path: Path) -> None:
    nothing = table(tmp_path, [Cell((), {"seed": 0}, "grid", "tiny-x-0123456789")])
    assert nothing["status"].tolist() == ["missing"]
    assert {"error", "step", "best/step", *TIMING, "threads", "device", "commit", "diff", "started", "ended"} < set(
        nothing
    )
    assert table(tmp_path, []).empty
    assert list(tmp_path.iterdir()) == []


def test_axes_keep_their_types_null_and_absence(tmp_path: Path) -> None:
    axes: list[dict[str, Any]] = [
        {"task": "trec", "lora.rank": 1, "lora.targets": ["q"], "optim.clip": None, "lora.alpha": 8},
        {"task": "imdb", "lora.rank": 8, "lora.targets": ["q", "v"], "optim.clip": 1.0},
    ]
    frame = table(tmp_path, [Cell((), each, "grid", f"x-{i:010}") for i, each in enumerate(axes)])
    assert frame["lora.rank"].dtype == int
    assert frame["task"].tolist() == ["trec", "imdb"]
    assert frame.groupby("lora.targets").size().to_dict() == {("q",): 1, ("q", "v"): 1}
    assert frame["optim.clip"].tolist() == [None, 1.0]
    first, second = frame["lora.alpha"]
    assert first == 8 and isinstance(first, int) and second != second


def test_a_run_is_found_under_whatever_slug_it_was_made(sweep: tuple[Path, list[Cell]]) -> None:
    store, (first, *_) = sweep
    renamed = Cell((), {}, "grid", f"another-slug-{first.run[-10:]}")
    assert table(store, [renamed])[["run", "status"]].iloc[0].tolist() == [first.run, "success"]
    assert curves(store, [renamed])["run"].unique().tolist() == [first.run]


def _hold(path: Path, held: Any) -> None:
    with RunDirectory(path).hold(wait=False):
        held.set()
        time.sleep(60)


@pytest.mark.parametrize(("at", "word"), [(0, "success"), (3, "running"), (4, "running"), (5, "running")])
def test_held_is_running_unless_it_is_done(sweep: tuple[Path, list[Cell]], tmp_path: Path, at: int, word: str) -> None:
    store, cells = sweep
    if at != 5:
        shutil.copytree(store / "runs" / cells[at].run, tmp_path / "runs" / cells[at].run)
    context = multiprocessing.get_context("fork")
    held = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "runs" / cells[at].run, held))
    holder.start()
    try:
        assert held.wait(10)
        assert table(tmp_path, cells[at : at + 1])["status"].tolist() == [word]
    finally:
        holder.kill()
        holder.join()
    assert table(tmp_path, cells[at : at + 1])["status"].tolist() == [STATES[at]]


@pytest.mark.parametrize("text", ["[]", "{}", '{"status": "odd"}', '{"status": ', "\x00", ""])
def test_a_damaged_record_hides_no_other_run(sweep: tuple[Path, list[Cell]], tmp_path: Path, text: str) -> None:
    store, cells = sweep
    copied(store, cells[:2], tmp_path)
    (tmp_path / "runs" / cells[0].run / "record.json").write_text(text)
    frame = table(tmp_path, cells[:2])
    assert frame["status"].tolist() == ["damaged", "success"]
    assert "the same command trains the run again" in frame["error"][0]


def test_train_loss_is_found_before_a_long_end(sweep: tuple[Path, list[Cell]], tmp_path: Path) -> None:
    store, cells = sweep
    copied(store, cells[:1], tmp_path)
    path = tmp_path / "runs" / cells[0].run / "metrics.jsonl"
    line = json.dumps({"step": 12, "split": "validation", "values": {"accuracy": 0.5}, "seconds": 1.0}) + "\n"
    expected = table(store, cells[:1])["train/loss"][0]
    path.write_text(path.read_text() + line * 50)
    assert table(tmp_path, cells[:1])["train/loss"][0] == expected
    path.write_text(line)
    assert table(tmp_path, cells[:1])["train/loss"].isna().all()
    path.unlink()
    assert table(tmp_path, cells[:1])["train/loss"].isna().all()


def test_reading_changes_nothing(sweep: tuple[Path, list[Cell]]) -> None:
    def state() -> dict[str, tuple[int, int]]:
        found = {str(path): path.stat() for path in (sweep[0] / "runs").rglob("*")}
        return {name: (stat.st_mtime_ns, stat.st_size) for name, stat in found.items()}

    before = state()
    table(*sweep)
    curves(*sweep)
    assert state() == before


def test_curves_are_every_logged_value(sweep: tuple[Path, list[Cell]]) -> None:
    store, cells = sweep
    long = curves(store, cells)
    assert list(long) == ["run", "lora.ratio", "seed", "optim.clip", "step", "split", "name", "value", "seconds"]
    lines = [json.loads(x) for x in (store / "runs" / cells[0].run / "metrics.jsonl").read_text().splitlines()]
    expected = [(x["step"], x["split"], name, value) for x in lines for name, value in x["values"].items()]
    mine = long[long["run"] == cells[0].run]
    assert list(mine[["step", "split", "name", "value"]].itertuples(index=False, name=None)) == expected
    assert (mine["lora.ratio"] == 1).all()
    assert long["run"].unique().tolist() == [cells[at].run for at in (0, 1, 2, 4)]  # runs that logged anything
    cut = long[long["run"] == cells[4].run]
    assert cut["step"].tolist() == [1, 2, 3, 4]  # the truncated line does not count
    assert cut["value"].isna().tolist() == [False, False, False, True]
    only = curves(store, cells, split="validation")
    pd.testing.assert_frame_equal(only, long[long["split"] == "validation"].reset_index(drop=True))
    empty = curves(store, cells[5:6])
    assert empty.empty and list(empty) == [name for name in long if name != "optim.clip"]


def test_a_damaged_line_of_metrics_is_one_line(sweep: tuple[Path, list[Cell]], tmp_path: Path) -> None:
    store, cells = sweep
    copied(store, cells[:1], tmp_path)
    path = tmp_path / "runs" / cells[0].run / "metrics.jsonl"
    first, *rest = path.read_text().splitlines(keepends=True)
    path.write_text("".join([first, "\x00\x00\n", *rest]))
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2 is damaged"):
        curves(tmp_path, cells[:1])
    assert table(tmp_path, cells[:1])["status"].tolist() == ["success"]
    copied(store, cells[1:2], tmp_path)
    left_out: dict[str, str] = {}
    long = curves(tmp_path, cells[:2], left_out=left_out)
    assert long["run"].unique().tolist() == [cells[1].run] and list(left_out) == [cells[0].run]


METRICS = {"no UTF-8": b"\xff\xfe\n", "no object": b"3\n", "no numbers": NULL.replace("null", '"low"').encode()}


@pytest.mark.parametrize("at", [0, 3, 4], ids=["success", "failed", "cut off"])
@pytest.mark.parametrize("text", METRICS.values(), ids=METRICS)
def test_damaged_metrics_hide_no_other_run(
    sweep: tuple[Path, list[Cell]], tmp_path: Path, text: bytes, at: int
) -> None:
    store, cells = sweep
    some = [cells[at], cells[1]]
    for each in some:
        shutil.copytree(store / "runs" / each.run, tmp_path / "runs" / each.run)
    (tmp_path / "runs" / some[0].run / "metrics.jsonl").write_bytes(text)
    frame = table(tmp_path, some)
    assert frame["status"].tolist() == ["damaged", "success"]
    (line,) = damaged(frame)
    assert line.startswith(f"left out, for it is damaged: {some[0].run}: ") and "metrics.jsonl" in line


def test_mixed_versions_are_told_with_counts(sweep: tuple[Path, list[Cell]], tmp_path: Path) -> None:
    store, cells = sweep
    old, new = {"commit": "a" * 40, "diff": None}, {"commit": "a" * 40, "diff": "0123456789abcdef"}
    copied(store, cells[:2], tmp_path, git=new)
    copied(store, cells[2:3], tmp_path, git=old)
    copied(store, cells[3:4], tmp_path, git={"commit": None, "diff": None})  # failed: not used in figures
    assert mixed_versions(table(tmp_path, cells)) == [
        "3 finished runs come from 2 versions of the code:",
        "  2 runs: commit aaaaaaaaaa with diff 0123456789abcdef",
        "  1 run: commit aaaaaaaaaa",
    ]
    assert mixed_versions(table(tmp_path, [*cells[:2], *cells[3:]])) == []
    assert mixed_versions(table(tmp_path, cells[5:6])) == []


def test_without_a_checkout_there_is_a_version_too(sweep: tuple[Path, list[Cell]], tmp_path: Path) -> None:
    store, cells = sweep
    copied(store, cells[:1], tmp_path, git={"commit": None, "diff": None})
    assert mixed_versions(table(tmp_path, cells[:1])) == []
    copied(store, cells[1:2], tmp_path, git={"commit": "b" * 40, "diff": None})
    assert "  1 run: no git checkout" in mixed_versions(table(tmp_path, cells[:2]))


def test_a_table_of_real_runs_can_be_selected_from(sweep: tuple[Path, list[Cell]]) -> None:
    store, cells = sweep
    frame = table(store, cells[:2])
    (best,) = selected(frame, by=["task"], metric="validation/loss", over=["seed"])
    lowest = frame[frame["validation/loss"] == frame["validation/loss"].min()]
    assert [best] == [
        {"lora.ratio": r, "mean": m} for r, m in zip(lowest["lora.ratio"], lowest["validation/loss"], strict=True)
    ]
    assert edges(frame, by=[], metric="validation/loss", over=["seed"]) == []
    with pytest.raises(UserError, match=r"^4 of 7 runs are not done"):
        selected(table(store, cells), by=["task"], metric="validation/loss", over=["seed"])


def test_collecting_imports_no_torch() -> None:
    code = "import sys, loralab.sweeps.collect; assert not {'torch', 'transformers', 'hydra'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_paused_run_has_its_step_and_its_best_scores_so_far(tmp_path: Path) -> None:
    paused = cell(tmp_path, seed=0)
    run(config(tmp_path, "train.pause_at=7"))
    row, stored = table(tmp_path, [paused]).iloc[0], record(tmp_path, paused)
    assert (row["status"], row["step"], row["best/step"]) == ("paused", 7, 6)
    assert row["best/validation/loss"] == stored["metrics"]["validation"]["best"]["loss"]
    assert "validation/loss" not in row and not [name for name in row.index if "test" in name]
    assert row["seconds"] == stored["timing"]["seconds"]
    steps = curves(tmp_path, [paused], "validation")["step"].unique()
    assert steps.tolist() == [6], "what a tuner judges it by"
