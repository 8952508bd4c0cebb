"""Jobs for the tests of the pool and the scheduler; a worker imports them by name, like a run's function."""

import contextlib
import os
import signal
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loralab.sweeps.worker import Ended

Tell = Callable[..., None]
# Read at import, before any job.
AT_IMPORT = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}

# Signals of a pack that came before the job that waits for one.
EARLY: list[int] = []


def prepare(shared: Any, tell: Tell) -> Callable[[Any], Any]:
    """A worker's function: a job is (name of a function here, its argument), and a list of them a pack."""

    def work(job: tuple[str, Any] | list[tuple[str, Any]]) -> Any:
        if isinstance(job, list):
            told = [lambda content, i=i: tell((i, content)) for i in range(len(job))]
            EARLY.clear()
            signal.signal(signal.SIGTERM, lambda number, _: EARLY.append(number))
            for i, (name, argument) in enumerate(job):
                told[i](Ended(JOBS[name](argument, shared, told[i])))
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            return None
        name, argument = job
        return JOBS[name](argument, shared, tell)

    return work


def prepare_and_die(shared: Any, tell: Tell) -> Callable[[Any], Any]:
    """Dies before it is ready."""
    print("no room for the weights", flush=True)
    os._exit(7)


def _double(argument: Any, shared: Any, tell: Tell) -> Any:
    return argument * 2


def _shared(argument: Any, shared: Any, tell: Tell) -> Any:
    return shared


def _pid(argument: Any, shared: Any, tell: Tell) -> Any:
    return os.getpid()


def _environment(argument: Any, shared: Any, tell: Tell) -> Any:
    return AT_IMPORT


def _tell(argument: Any, shared: Any, tell: Tell) -> Any:
    for message in argument:
        tell(message)
    return "told"


def _alive(argument: Any, shared: Any, tell: Tell) -> Any:
    """Works for this many seconds, with heartbeats."""
    end = time.monotonic() + argument
    while time.monotonic() < end:
        tell("alive")
        time.sleep(0.05)
    return "lived"


def _fail(argument: Any, shared: Any, tell: Tell) -> Any:
    return "failed"


def _stopped_once(argument: Any, shared: Any, tell: Tell) -> Any:
    """As a run that another process asks to stop, where the file is not there."""
    if Path(argument).exists():
        return "at last"
    Path(argument).touch()
    return "stopped"


def _raise(argument: Any, shared: Any, tell: Tell) -> Any:
    raise RuntimeError(argument)


def _leave(argument: Any, shared: Any, tell: Tell) -> Any:
    print(argument)
    os._exit(3)


def _leave_once(argument: Any, shared: Any, tell: Tell) -> Any:
    """Creates the file and exits without a message, if the file does not exist yet."""
    if not Path(argument).exists():
        Path(argument).touch()
        os._exit(3)
    return "at last"


def _print(argument: Any, shared: Any, tell: Tell) -> Any:
    print(argument)
    return None


def _kill_myself(argument: Any, shared: Any, tell: Tell) -> Any:
    print("last words", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGKILL)


def _hang(argument: Any, shared: Any, tell: Tell) -> Any:
    """Sends one heartbeat, then hangs."""
    tell("hanging")
    in_a_function_with_a_name(argument)


def _announce(argument: Any, shared: Any, tell: Tell) -> Any:
    """Announces a silence, is silent for two seconds, announces its end, then hangs."""
    tell("silent from here", silence=argument)
    time.sleep(2)
    tell("back")
    time.sleep(3600)


def _leave_a_child(argument: Any, shared: Any, tell: Tell) -> Any:
    """Dies and leaves a child process with all its open files, or with its sockets only."""
    child = os.fork()
    if child == 0:
        for handle in () if argument == "all" else range(3, 256):
            with contextlib.suppress(OSError):
                if not stat.S_ISSOCK(os.fstat(handle).st_mode):
                    os.close(handle)
        time.sleep(120)
        os._exit(0)
    tell(child)
    os._exit(3)


def _unpicklable(argument: Any, shared: Any, tell: Tell) -> Any:
    return lambda: argument


def in_a_function_with_a_name(seconds: float) -> None:
    time.sleep(seconds)


def _allocate(argument: Any, shared: Any, tell: Tell) -> Any:
    """Allocates this many bytes; returns the process's resident bytes before that."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    assert len(b"x" * argument) == argument
    return pages * os.sysconf("SC_PAGE_SIZE")


def _stop(argument: Any, shared: Any, tell: Tell) -> Any:
    """Works until it is stopped, then writes its checkpoint to the file, as a run does."""
    stopped: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    tell("started")
    while not stopped + EARLY:
        time.sleep(0.01)
    signal.signal(signal.SIGTERM, before)
    time.sleep(0.3)  # writing a checkpoint takes time
    Path(argument).touch()
    return "stopped"


def _stop_and_leave(argument: Any, shared: Any, tell: Tell) -> Any:
    """Stops as requested, then dies."""
    _stop(argument, shared, tell)
    os._exit(1)


JOBS: dict[str, Callable[[Any, Any, Tell], Any]] = {
    "double": _double,
    "shared": _shared,
    "pid": _pid,
    "environment": _environment,
    "tell": _tell,
    "alive": _alive,
    "fail": _fail,
    "stopped once": _stopped_once,
    "raise": _raise,
    "leave": _leave,
    "leave once": _leave_once,
    "print": _print,
    "kill myself": _kill_myself,
    "hang": _hang,
    "announce": _announce,
    "leave a child": _leave_a_child,
    "unpicklable": _unpicklable,
    "allocate": _allocate,
    "stop": _stop,
    "stop and leave": _stop_and_leave,
}
