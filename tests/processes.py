"""Real processes for tests: each writes to a file, ends with its test, and is waited for with a time limit.

`Process` starts a command as a shell does. `Warm` forks it from a process that has imported torch and transformers,
which saves most of a small run's CPU seconds.
"""

import atexit
import contextlib
import multiprocessing
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import psutil

# Time limit in seconds on a few busy cores: a test fails after this instead of hanging.
LONGEST = 600.0

# The imports of a run of a small BERT. None of them starts a thread, so the process can be forked.
IMPORTED = (
    "hydra.main", "pandas", "pyarrow.parquet", "torch.distributed", "torch._dynamo", "safetensors.torch", "tokenizers",
    "transformers.models.bert.modeling_bert", "transformers.models.auto", "loralab.cli.main", "loralab.cli.hydra_main",
    "loralab.runs.run", "loralab.training.checkpoint",
)  # fmt: skip


class Process(subprocess.Popen[bytes]):
    """A command in a separate process, with its output in a file."""

    running: ClassVar[list["Process"]] = []

    def __init__(self, command: Sequence[str], output: Path, **settings: Any) -> None:
        output.parent.mkdir(parents=True, exist_ok=True)
        self.output = output
        with output.open("wb") as stream:
            super().__init__(command, stdout=stream, stderr=subprocess.STDOUT, **settings)
        self.running.append(self)

    def text(self) -> str:
        return self.output.read_text()

    def status(self) -> int:
        """Waits for the end of the process and returns its exit status."""
        try:
            return self.wait(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end in {LONGEST:g} s; it printed:\n{self.text()}") from None

    def ends(self, status: int = 0) -> str:
        """Waits for the end, checks the exit status, and returns the output."""
        assert self.status() == status, self.text()
        return self.text()

    def until(self, moment: Callable[[], Any]) -> Any:
        """The first true value of `moment`; fails if the process ends before."""
        end = time.monotonic() + LONGEST
        while not (found := moment()):
            assert self.poll() is None, f"it ended before the moment came; it printed:\n{self.text()}"
            assert time.monotonic() < end, f"the moment did not come in {LONGEST:g} s; it printed:\n{self.text()}"
            time.sleep(0.001)
        return found

    def kill_tree(self) -> None:
        """Kills the process and its descendants (SIGKILL); they are stopped first, so that none sees another die."""
        if self.poll() is not None:
            return
        tree = [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]
        for signal in (psutil.Process.suspend, psutil.Process.kill):
            for process in tree:
                with contextlib.suppress(psutil.NoSuchProcess):
                    signal(process)
        psutil.wait_procs(tree[1:], timeout=LONGEST)
        self.wait()


class Warm(Process):
    """A `Process` for `python SCRIPT ...` or `python -m MODULE ...`, forked from a process that has imported IMPORTED.

    It is a real process with its own signals and exit status, but not a child of this one. Variables that libraries
    read at import come from this process's environment, not from `env`. errors: a file for standard error.
    """

    def __init__(
        self,
        command: Sequence[str],
        output: Path,
        *,
        errors: Path | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        start_new_session: bool = False,
    ) -> None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(b"")
        if errors is not None:
            errors.write_bytes(b"")
        self.output, self.args, self.returncode = output, command, None
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(IMPORTED))
        settings = (dict(os.environ if env is None else env), cwd or Path.cwd(), start_new_session)
        self.forked = context.Process(target=_as_command, args=(command[1:], output, errors or output, *settings))
        self.forked.start()
        assert self.forked.pid is not None
        self.pid = self.forked.pid
        self.running.append(self)

    def poll(self) -> int | None:
        self.returncode = self.forked.exitcode
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self.forked.join(timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return status


def _as_command(
    arguments: Sequence[str], output: Path, errors: Path, env: dict[str, str], cwd: Path, session: bool
) -> None:
    """Turns this forked process into the command's, and runs its script or module."""
    if session:
        os.setsid()
    for number, path in ((1, output), (2, errors)):
        with path.open("ab") as stream:
            os.dup2(stream.fileno(), number)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    try:
        if arguments[0] == "-m":
            sys.argv = list(arguments[1:])
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(arguments)
            runpy.run_path(arguments[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # multiprocessing does not run them


def end_all() -> None:
    """Ends all processes of a test that failed while they ran."""
    while Process.running:
        Process.running.pop().kill_tree()
