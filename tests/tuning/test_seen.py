"""What is seen of a run: its curve up to where the trial was to pause, whatever came later."""

import math
from pathlib import Path

import pytest

from loralab.config.shares import pause_step
from loralab.errors import UserError
from loralab.store.run_directory import RunDirectory
from loralab.tuning.seen import look, share_of
from loralab.tuning.trial import settings_of

SETTINGS = settings_of({"optim.lr": 1e-3})


@pytest.mark.parametrize("steps", [10, 12, 25, 64, 100, 333, 800])
def test_the_step_of_a_pause_is_seen_at_its_share(steps: int) -> None:
    for share in (0.1, 0.2, 0.3, 0.5, 0.9):
        assert share_of(pause_step(share, steps), steps) == share
    assert share_of(steps, steps) == 1.0


def test_a_share_rises_with_the_step() -> None:
    shares = [share_of(step, 37) for step in range(1, 38)]
    assert shares == sorted(set(shares))


def test_a_finished_run_is_seen_whole_or_cut_at_a_share(finished: RunDirectory) -> None:
    """It has 12 steps and was validated at 6 and 12."""
    whole = look(finished, SETTINGS, steps=12)
    assert whole is not None and whole.observed.status == "success" and whole.share == 1.0
    assert [share for share, _ in whole.observed.curve] == [0.5, 1.0]
    half = look(finished, SETTINGS, steps=12, until=0.5)
    assert half is not None and half.observed.status == "paused" and half.share == 0.5
    assert half.observed.curve == whole.observed.curve[:1]
    assert half.seconds < whole.seconds
    early = look(finished, SETTINGS, steps=12, until=0.3)
    assert early is not None and early.observed.curve == () and early.observed.loss_at(0.3) == math.inf


def test_a_run_that_never_began_is_not_seen(tmp_path: Path) -> None:
    assert look(RunDirectory(tmp_path / "runs" / "a-0123456789"), SETTINGS, steps=12) is None


def test_a_record_without_its_curve_is_one_line(finished: RunDirectory, tmp_path: Path) -> None:
    run = tmp_path / "runs" / finished.path.name
    run.mkdir(parents=True)
    (run / "record.json").write_bytes((finished.path / "record.json").read_bytes())
    with pytest.raises(UserError, match=r"metrics.jsonl is gone; remove .*, and the same command trains the run again"):
        look(RunDirectory(run), SETTINGS, steps=12)
