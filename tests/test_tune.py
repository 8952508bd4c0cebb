"""Tuning sessions of real processes: killed, two at once, and from Python."""

import contextlib
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import loralab
from loralab.errors import UserError
from loralab.tuning.tuned import Tuned
from tests import test_sweep
from tests.processes import Process, Warm
from tests.small_runs import CONF
from tests.tuning.sessions import COMMAND

STEPS = 20
SETTINGS = (*COMMAND, f"train.steps={STEPS}", "train.checkpoint_seconds=0")
OPTIONS = {"budget": 2}
SWEEPER = ("-m", "hydra/sweeper=tune", "hydra.sweeper.budget=2")
BASIC = "hydra/launcher=basic"  # trains in the process itself
SLOTS = 2


def start(store: Path, *arguments: str, output: str = "output") -> Process:
    """Starts a session in a new process group; its output goes to a file in the store."""
    command = [sys.executable, str(CONF.parent / "train.py"), *SWEEPER, *SETTINGS, f"store={store}", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return Warm(command, store / output, env=environment, start_new_session=True)


def tuned(store: Path) -> Tuned:
    (folder,) = (store / "tune").iterdir()
    return Tuned.read(folder)


def recommendation(store: Path) -> dict[str, Any]:
    """All that a session says but for clocks and folders."""
    found = tuned(store)
    runs = [{key: value for key, value in run.items() if key != "seconds"} for run in found.runs]
    return {
        "settings": found.settings,
        "loss": found.loss,
        "plateau": found.plateau,
        "runs": runs,
        "cost": found.cost["full_runs"],
    }


def executed(store: Path) -> int:
    records = [json.loads(path.read_text()) for path in (store / "runs").glob("*/record.json")]
    return sum(record["timing"]["steps_executed"] for record in records)


def trained(store: Path) -> int:
    """The steps of all runs, each once."""
    records = [json.loads(path.read_text()) for path in (store / "runs").glob("*/record.json")]
    return sum(record["steps"] for record in records)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a whole session; not to be changed."""
    store = tmp_path_factory.mktemp("undisturbed")
    start(store, BASIC, f"hydra.sweeper.at_once={SLOTS}").ends()
    return store


def test_a_session_ends_with_a_recommendation_its_figure_and_the_command(undisturbed: Path) -> None:
    found = tuned(undisturbed)
    lines = (undisturbed / "output").read_text().splitlines()
    assert lines[-1] == str(found.file)
    assert any(line.startswith("recommended: optim.lr=") for line in lines)
    assert found.figure.is_file()
    assert 0 < found.cost["full_runs"] <= OPTIONS["budget"]
    assert executed(undisturbed) == trained(undisturbed)


@pytest.mark.slow
def test_packed_trials_lead_to_the_same_recommendation(tmp_path: Path) -> None:
    found = []
    for name, pack in (("alone", 1), ("packed", SLOTS)):
        pool = (f"hydra.launcher.slots={SLOTS // pack}", f"hydra.launcher.pack={pack}")
        start(tmp_path / name, "train.precision=fp32", "optim.eps=1e-6", *pool).ends()
        records = [json.loads(path.read_text()) for path in (tmp_path / name / "runs").glob("*/record.json")]
        assert max(record["packed"] for record in records) == pack
        found.append(recommendation(tmp_path / name))
    assert found[1]["settings"] == found[0]["settings"]
    assert [{**run, "loss": None} for run in found[1]["runs"]] == [{**run, "loss": None} for run in found[0]["runs"]]
    losses = [[run["loss"] for run in each["runs"]] for each in found]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5, abs=1e-5)


def killed(store: Path, times: int, *arguments: str) -> int:
    """The session, killed with all its workers at random moments, then whole; the steps since their checkpoints."""
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    print(f"moments from seed {seed}")
    lost: dict[str, int] = {}
    for time_ in range(times):
        session = start(store, *arguments, output=f"killed-{time_}")
        enough = steps_so_far(store) + chance.randrange(1, STEPS)
        while session.poll() is None and steps_so_far(store) < enough:
            time.sleep(0.001)
        session.kill_tree()
        for run in [path.parent for path in store.glob("runs/*/executed")]:
            lost[run.name] = lost.get(run.name, 0)
            lost[run.name] += test_sweep.executed(run) - lost[run.name] - test_sweep.saved_step(run)
    start(store, *arguments, output="last").ends()
    return sum(lost.values())


def steps_so_far(store: Path) -> int:
    """Of all runs, also of those that are being trained."""
    total = 0
    for run in store.glob("runs/*"):
        with contextlib.suppress(FileNotFoundError):  # it ends at this moment
            total += test_sweep.executed(run) if (run / "executed").exists() else STEPS
    return total


def test_a_session_that_was_killed_ends_as_if_it_never_was(undisturbed: Path, tmp_path: Path) -> None:
    lost = killed(tmp_path, 1, BASIC, f"hydra.sweeper.at_once={SLOTS}")
    assert recommendation(tmp_path) == recommendation(undisturbed)
    assert executed(tmp_path) == trained(tmp_path) + lost


@pytest.mark.slow
def test_a_session_that_was_killed_ten_times_ends_as_if_it_never_was(undisturbed: Path, tmp_path: Path) -> None:
    """With the pool, whose workers are killed too."""
    lost = killed(tmp_path, 10, f"hydra.launcher.slots={SLOTS}")
    assert recommendation(tmp_path) == recommendation(undisturbed)
    assert executed(tmp_path) == trained(tmp_path) + lost


def test_two_sessions_at_once_train_no_trial_twice_and_agree(undisturbed: Path, tmp_path: Path) -> None:
    both = [start(tmp_path, BASIC, f"hydra.sweeper.at_once={SLOTS}", output=f"output-{i}") for i in (0, 1)]
    last = {session.ends().splitlines()[-1] for session in both}
    assert last == {str(tuned(tmp_path).file)}
    assert recommendation(tmp_path) == recommendation(undisturbed)
    assert executed(tmp_path) == trained(tmp_path)


def test_the_tuned_file_has_the_run_of_the_trial(undisturbed: Path) -> None:
    found = tuned(undisturbed)
    command = [sys.executable, str(CONF.parent / "train.py"), f"tuned={found.file}", f"store={undisturbed}"]
    output = Warm(command, undisturbed / "tuned").ends()
    (run,) = [run for run in found.runs if run["optim.lr"] == found.settings["optim.lr"] and run["seed"] == 0]
    assert run["run"] in output and "already done" in output


@pytest.mark.slow
def test_from_python_it_is_an_object(undisturbed: Path) -> None:
    found = loralab.tune(*SETTINGS, {"hydra.sweeper.at_once": SLOTS}, BASIC, store=undisturbed, **OPTIONS)
    assert recommendation(undisturbed)["settings"] == found.settings
    assert set(found.trials["status"]) <= {"success", "paused", "diverged"}
    assert "optim.lr=" in found.command


def test_a_mistake_from_python_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--budget: got 0; it must be a number at least 1"):
        loralab.tune(store=tmp_path, budget=0)
    with pytest.raises(UserError, match="unexpected keyword argument 'budgt'"):
        loralab.tune(store=tmp_path, budgt=3)
