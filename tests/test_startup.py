"""Start-up: signals end a command at once, it imports only what it needs, and the garbage collector is restored."""

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

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


ENTRIES = {
    "train.py": [str(ROOT / "train.py")],
    "pretrain.py": [str(ROOT / "pretrain.py")],
    "loralab": ["-m", "loralab.cli.main", "figure", "first"],
}
# A module named hydra, or pandas, that an interrupt reaches within an import in C, which loses the KeyboardInterrupt.
LOSES = """
import os, signal, threading
try:
    os.kill(os.getpid(), signal.{name})
    for _ in range(1_000): pass
except KeyboardInterrupt:
    pass
print("goes on", flush=True)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_signal_within_an_import_ends_the_command(entry: str, name: str, tmp_path: Path) -> None:
    for module in ("hydra", "omegaconf", "pandas"):
        (tmp_path / f"{module}.py").write_text(LOSES.format(name=name))
    done = subprocess.run(
        [sys.executable, *ENTRIES[entry]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT / 'src'}", "LORALAB_STORE": str(tmp_path / "store")},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.Signals[name], "", "")
    assert not (tmp_path / "store").exists()


def test_a_command_in_the_background_of_a_script_ignores_the_interrupt_of_the_foreground() -> None:
    code = "import signal; from loralab.startup import begin; begin(); print(signal.getsignal(2) is signal.SIG_IGN)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert done.stdout == "True\n"


def test_what_a_command_does_before_its_signals_imports_little() -> None:
    code = "import sys; before = set(sys.modules); import loralab.startup; print(*(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert {"loralab.startup", "signal"} <= set(done.stdout.split())
    assert not {"typing", "re", "pathlib", "contextlib"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("argument", "said"),
    [(b"a=\xe9.csv", "a=\\udce9.csv: is not in UTF-8; rename the file or folder"), (b"a=\xc3\xa9", "set PYTHONUTF8=1")],
)
def test_a_name_that_cannot_be_decoded_is_one_line(argument: bytes, said: str, tmp_path: Path) -> None:
    settings = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "LC_ALL": "C", "PYTHONUTF8": "0"}
    for entry in (["train.py"], ["-m", "loralab.cli.main", "show"]):
        command = [sys.executable.encode(), *(word.encode() for word in entry), argument]
        done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False)
        assert done.returncode == 2 and done.stderr.startswith("error: a=") and said in done.stderr
        assert done.stderr.count("\n") == 1
