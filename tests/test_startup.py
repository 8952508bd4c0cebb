"""Start-up: a command imports only what it needs, and the garbage collector's settings are restored afterwards."""

import gc
import os
import subprocess
import sys
from pathlib import Path

from loralab.imports import with_rare_collection, without_collection
from loralab.store.run_directory import RunDirectory

ROOT = Path(__file__).resolve().parents[1]
HEAVY = (
    "torch", "transformers", "datasets", "peft", "wandb", "rich", "sklearn", "scipy.stats", "pandas", "matplotlib",
    "hydra",
)  # fmt: skip
COMMANDS: dict[tuple[str, ...], set[str]] = {  # the modules of HEAVY that each may import in addition
    ("loralab", "--help"): set(),
    ("loralab", "runs"): set(),
    ("loralab", "show", "RUN"): {"hydra"},
    ("loralab", "status", "first"): {"hydra", "pandas", "torch"},
    ("loralab", "figure", "first", "seed=0"): {"hydra", "pandas", "matplotlib"},  # no CSV, so no figure
    ("loralab", "spectrum", "RUN", "--top", "0"): {"torch", "transformers", "matplotlib"},
    ("train.py", "--help"): {"hydra"},
    ("train.py", "sweeps=frist"): {"hydra"},
}

# Prints the imported modules of HEAVY when the command ends, in any way.
PROBE = """
import runpy, sys
command, sys.argv[1:] = sys.argv[2], sys.argv[3:]
try:
    if command == "loralab":
        from loralab.cli.main import main
        main(sys.argv[1:])
    else:
        sys.argv[0] = command
        runpy.run_path(command, run_name="__main__")
finally:
    print("imported:", *({heavy} & set(sys.modules)))
"""


def _imported(command: tuple[str, ...], store: Path) -> tuple[set[str], str]:
    """The modules of HEAVY that a command imports, and its output."""
    environment = {**os.environ, "LORALAB_STORE": str(store), "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-c", PROBE.replace("{heavy}", repr(set(HEAVY))), "", *command],
        cwd=ROOT,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
    )
    before, found, names = done.stdout.rpartition("imported:")
    assert found, done.stderr
    return set(names.split()), before + done.stderr


def test_a_command_imports_what_it_needs_alone(finished: RunDirectory) -> None:
    wrong = {}
    for command, allowed in COMMANDS.items():
        given = tuple(finished.hash if word == "RUN" else word for word in command)
        found, said = _imported(given, finished.path.parent.parent)
        assert "Traceback" not in said, said
        if found - allowed:
            wrong[command] = found - allowed
    assert wrong == {}


def test_the_collector_is_off_while_something_is_imported_and_is_as_before_afterwards() -> None:
    threshold = gc.get_threshold()
    with without_collection():
        assert not gc.isenabled()
        with without_collection():
            pass
        assert not gc.isenabled()
    assert gc.isenabled() and gc.get_freeze_count() == 0
    with with_rare_collection():
        assert gc.isenabled() and gc.get_threshold()[0] > threshold[0]
    assert gc.get_threshold() == threshold
