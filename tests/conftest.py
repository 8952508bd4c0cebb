"""Fixtures of the top-level tests: finished runs, made once per session, and the end of processes and figures."""

import os
import sys
from collections.abc import Iterator

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: pytest's processes share the cores, like workers

from loralab.store.run_directory import RunDirectory
from tests.processes import end_all
from tests.small_runs import config

# The slow tests that the gate (`make test`) includes: one for each kind of failure, and one study of each
# shape. `make test-all` has every test.
GATE = (
    "tests/test_end_to_end.py::test_resume_after_kill_is_bitwise_equal[at_random-lora_plus]",
    "tests/test_end_to_end.py::test_a_signal_checkpoints_and_the_same_command_goes_on[15-143]",
    "tests/test_sweep.py::test_a_killed_sweep_ends_as_if_it_never_was[once]",
    "tests/test_torchrun.py::test_several_processes_have_the_losses_of_one[short last batch]",
    "tests/test_launchers.py::test_a_preempted_job_is_requeued_and_loses_no_step",
    "tests/analysis/test_studies.py::test_one_command_trains_collects_and_draws[ratio]",
    "tests/analysis/test_studies.py::test_its_runs_are_trained_collected_and_drawn[first]",
    "tests/analysis/test_studies.py::test_its_runs_are_trained_collected_and_drawn[targets]",
    "tests/analysis/test_studies.py::test_its_runs_are_trained_collected_and_drawn[convergence]",
    "tests/analysis/test_studies.py::test_its_runs_are_trained_collected_and_drawn[subspace_rank]",
    "tests/analysis/test_studies.py::test_one_command_measures_and_draws[toy_mlp]",
    "tests/test_paper.py::test_the_smoke_size_trains_offline_with_the_studys_own_optimizer[paper/gpt2_grid]",
    "tests/compat/test_hydra.py::test_the_command_works_without_the_parsers_name",
)


@pytest.hookimpl(tryfirst=True)  # before -k and -m deselect
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks the tests of the gate. Files with slow tests come first, so that none is alone at work in the end."""
    if not any("::" in argument for argument in config.args):  # whole files
        found, files = {item.nodeid for item in items}, {item.nodeid.partition("::")[0] for item in items}
        lost = [name for name in GATE if name.partition("::")[0] in files and name not in found]
        if lost:
            raise pytest.UsageError(f"GATE names tests that are not there: {', '.join(lost)}")
    slow = {item.path for item in items if item.get_closest_marker("slow") is not None}
    items.sort(key=lambda item: item.path not in slow)
    for item in items:
        if item.get_closest_marker("slow") is None or item.nodeid in GATE:
            item.add_marker(pytest.mark.gate)


@pytest.fixture(autouse=True)
def _nothing_left_open() -> Iterator[None]:
    """Ends the processes of a test and closes its figures: matplotlib warns at the 21st, an error here."""
    yield
    end_all()
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A successful small run of the tiny backbone; not to be changed."""
    from loralab.runs.run import run

    store = tmp_path_factory.mktemp("finished")
    run(config(store))
    (path,) = (store / "runs").iterdir()
    return RunDirectory(path)
