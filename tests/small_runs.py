"""Small real runs for tests: the tiny backbone on real sentences, in the test's store."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from loralab.config.compose import Composer, configs
from loralab.config.schema import Config, from_hydra
from loralab.store.run_directory import RunDirectory
from loralab.training.signals import Interrupted, Interrupts

CONF = Path(__file__).resolve().parents[1] / "conf"
SMALL_ROWS = 64  # rows of each split
SMALL = (
    "model=tiny",
    "tracker=none",
    f"task.train_rows={SMALL_ROWS}",
    f"task.eval_rows={SMALL_ROWS}",
    "train.max_length=32",
    "train.batch_size=8",
    "train.steps=12",
    "train.epochs=null",
    "train.eval_every=6",
    "train.log_every=1",
    "train.threads=1",
    "train.device=cpu",
)


@functools.cache
def composer() -> Composer:
    """Composes configs from conf/ in a tenth of Hydra's time (tests/config/test_compose.py checks equality)."""
    with configs():
        running = GlobalHydra.instance().hydra
        assert running is not None
        master = running.compose_config("config", [], run_mode=RunMode.MULTIRUN, with_log_configuration=False)
        return Composer(running.config_loader, master)


def config(store: Path, *overrides: str) -> Config:
    """A small run's config, as the command line would compose it."""
    return from_hydra(composer().settings([*SMALL, f"store={store}", *overrides]))


def trained_on(folder: Path, rows: list[dict[str, Any]], *overrides: str, kind: str = "local") -> RunDirectory:
    """A small finished run on rows of the user's own, whose label is in the column `label`; kind: local or pairs."""
    from loralab.runs.plan import plan
    from loralab.runs.run import run

    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = config(
        folder / "store", f"task={kind}", f"task.files.train={folder / 'mine.jsonl'}", "task.label=label",
        "task.train_rows=null", "task.eval_rows=null", "train.steps=3", *overrides,
    )  # fmt: skip
    run(asked)
    return plan(asked).directory


def cut_off(asked: Config, monkeypatch: pytest.MonkeyPatch, *, at: int) -> None:
    """Trains until the run checks for an interrupt for the `at`-th time, and stops it there, as a signal does."""
    from loralab.runs.run import run

    looks = 0

    def look(self: Interrupts) -> None:
        nonlocal looks
        looks += 1
        if looks == at:
            raise Interrupted(15)

    with monkeypatch.context() as patch:
        patch.setattr(Interrupts, "check", look)
        with pytest.raises(Interrupted):
            run(asked)


def outcome(store: Path) -> dict[str, Any]:
    """The reproducible outputs of a store's only run: metrics without clocks, predictions, and trained weights."""
    (directory,) = store.glob("runs/*")
    weights = sorted(p for folder in ("adapter", "model") for p in (directory / folder).rglob("*") if p.is_file())
    assert weights
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return {
        "lines": [{k: v for k, v in line.items() if k != "seconds"} for line in lines],
        "metrics": json.loads((directory / "record.json").read_text())["metrics"],
        "predictions": (directory / "predictions.parquet").read_bytes(),
        "weights": [(str(p.relative_to(directory)), p.read_bytes()) for p in weights],
    }
