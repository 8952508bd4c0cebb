"""The pool, with real processes: a crash or a hang costs one job, and no worker grows or outlives its parent."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from loralab.sweeps.pool import CLOSE_SECONDS, FUTILE_STARTS, OUTPUT_LINES, Event, Pool, Worker
from tests.sweeps.jobs import prepare, prepare_and_die

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60  # time limit on a busy machine


@pytest.fixture(scope="module")
def warm() -> Iterator[Pool]:
    """Two workers with different environments, for tests that do not end them."""
    slots = [{"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": str(gpu)} for gpu in (5, 6)]
    pool = Pool(slots, prepare, {"for": "all"}, timeout=None)
    yield pool
    pool.close()


@pytest.fixture
def mortal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Pool]]:
    """Makes pools whose workers may die, and closes them."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # their last output must not depend on it
    made: list[Pool] = []

    def make(slots: int = 1, *, timeout: float | None = None, prepare: Any = prepare) -> Pool:
        made.append(Pool([{}] * slots, prepare, None, timeout=timeout))
        return made[-1]

    yield make
    for pool in made:
        pool.close()


def ready(pool: Pool, count: int = 1) -> list[Worker]:
    """This many idle workers."""
    pool.start(count)
    until(lambda: len(pool.idle()) >= count, pool)
    return pool.idle()[:count]


def until(condition: Callable[[], bool], pool: Pool | None = None) -> list[Event]:
    """The pool's events until the condition holds."""
    end = time.monotonic() + SECONDS
    said: list[Event] = []
    while not condition():
        assert time.monotonic() < end, f"it did not happen; {said}"
        if pool is None:
            time.sleep(0.02)
        else:
            said += pool.events(0.05)
    return said


def done(pool: Pool, *jobs: tuple[str, Any], worker: Worker | None = None) -> list[Event]:
    """All events of the jobs, which run one after the other on one worker."""
    said: list[Event] = []
    for number, job in enumerate(jobs):
        if worker is None or worker.slot not in pool.workers:
            (worker,) = ready(pool)
        pool.give(worker, f"job {number}", job)
        said += until(lambda: not pool.busy(), pool)
    return said


def kinds(said: Sequence[Event]) -> list[str]:
    return [event.kind for event in said]


def test_a_jobs_result_comes_back_after_what_it_told(warm: Pool) -> None:
    said = done(warm, ("double", [1, 2]), ("tell", ["a", {"step": 3}]))
    assert [(event.kind, event.job, event.content) for event in said] == [
        ("done", "job 0", [1, 2, 1, 2]),
        ("message", "job 1", "a"),
        ("message", "job 1", {"step": 3}),
        ("done", "job 1", "told"),
    ]


def test_what_is_shared_reaches_every_job(warm: Pool) -> None:
    assert done(warm, ("shared", None))[0].content == {"for": "all"}


def test_a_slots_environment_is_there_before_anything_is_imported_and_ours_is_as_it_was(warm: Pool) -> None:
    before = dict(os.environ)
    found = {}
    for worker in ready(warm, 2):
        (event,) = done(warm, ("environment", None), worker=worker)
        found[event.slot] = event.content
    assert found == {slot: {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": str(5 + slot)} for slot in (0, 1)}
    assert dict(os.environ) == before


def test_there_are_never_more_workers_than_slots(warm: Pool) -> None:
    ready(warm, 2)
    warm.start(10)
    assert sorted(warm.workers) == [0, 1]
    assert len({worker.process.pid for worker in warm.workers.values()}) == 2


def test_as_many_workers_start_as_there_is_work_for(mortal: Callable[..., Pool]) -> None:
    pool = mortal(3)
    pool.start(1)
    pool.start(1)
    assert list(pool.workers) == [0]


def test_one_process_does_job_after_job(warm: Pool) -> None:
    (worker,) = ready(warm)
    assert {event.content for event in done(warm, *[("pid", None)] * 20, worker=worker)} == {worker.process.pid}


def test_no_memory_grows_from_job_to_job(warm: Pool) -> None:
    (worker,) = ready(warm)
    resident = [event.content for event in done(warm, *[("allocate", 50_000_000)] * 50, worker=worker)]
    assert abs(resident[49] - resident[4]) < 5_000_000


def test_a_job_that_raises_costs_itself_alone(warm: Pool) -> None:
    (worker,) = ready(warm)
    raised, after = done(warm, ("raise", "out of luck"), ("pid", None), worker=worker)
    assert raised.kind == "raised"
    assert "RuntimeError: out of luck" in raised.content and "in _raise" in raised.content
    assert after.content == worker.process.pid


def test_a_result_that_cannot_be_sent_is_an_error_of_its_job(warm: Pool) -> None:
    (worker,) = ready(warm)
    raised, after = done(warm, ("unpicklable", 1), ("pid", None), worker=worker)
    assert raised.kind == "raised" and "unpicklable.<locals>" in raised.content  # Pythons differ in wording
    assert after.content == worker.process.pid


def test_workers_are_deaf_to_a_terminals_interrupt(warm: Pool) -> None:
    """Ctrl-C goes to the terminal's process group, and workers are in another group."""
    for worker in ready(warm, 2):
        assert worker.process.pid is not None
        assert os.getpgid(worker.process.pid) == worker.process.pid != os.getpgid(0)


def test_a_death_tells_exit_status_and_last_words_and_the_slot_works_on(mortal: Callable[..., Pool]) -> None:
    pool = mortal()
    died, after = done(pool, ("leave", "not flushed"), ("double", 4))
    assert (died.kind, died.job, died.slot) == ("died", "job 0", 0)
    assert died.content == "not flushed\nits process ended with exit status 3"
    assert (after.kind, after.content, after.slot) == ("done", 8, 0)


def test_a_dead_workers_reason_has_its_own_jobs_output_and_the_end_of_it(mortal: Callable[..., Pool]) -> None:
    lines = [f"line {i}" for i in range(OUTPUT_LINES + 5)]
    said = done(mortal(), ("print", "of another job"), ("leave", "\n".join(lines)))
    assert said[-1].content.splitlines()[:-1] == lines[5:]


def test_a_sigkill_is_told_with_its_likely_reasons(mortal: Callable[..., Pool]) -> None:
    (died,) = done(mortal(), ("kill myself", None))
    assert died.content.startswith("last words\nits process was killed (SIGKILL)")


def test_a_busy_workers_death_costs_the_other_nothing(mortal: Callable[..., Pool]) -> None:
    pool = mortal(2)
    victim, other = ready(pool, 2)
    pool.give(victim, "victim", ("alive", SECONDS))
    pool.give(other, "other", ("alive", 1.0))
    victim.process.kill()
    said = until(lambda: not pool.busy(), pool)
    ends = {event.job: event.kind for event in said if event.kind != "message"}
    assert ends == {"victim": "died", "other": "done"}
    assert list(pool.workers) == [other.slot]


def test_an_idle_workers_death_costs_nothing_and_its_place_is_filled(mortal: Callable[..., Pool]) -> None:
    pool = mortal()
    (victim,) = ready(pool)
    victim.process.kill()
    victim.process.join()
    assert until(lambda: not pool.workers, pool) == []
    (after,) = done(pool, ("double", 1))
    assert after.content == 2


def test_a_job_given_to_a_worker_that_just_died_is_told_of(mortal: Callable[..., Pool]) -> None:
    pool = mortal()
    (victim,) = ready(pool)
    victim.process.kill()
    victim.process.join()
    pool.give(victim, "unlucky", ("double", 1))
    assert [(event.kind, event.job) for event in until(lambda: not pool.busy(), pool)] == [("died", "unlucky")]


@pytest.mark.parametrize("held", ["connection", "all"])
def test_a_death_is_told_while_a_child_of_the_dead_holds_its_files(held: str, mortal: Callable[..., Pool]) -> None:
    told, died = done(mortal(), ("leave a child", held))
    psutil.Process(told.content).kill()
    assert (died.kind, died.job) == ("died", "job 0") and died.content.endswith("exit status 3")


def test_a_hang_is_killed_and_the_reason_has_the_stack_of_it(mortal: Callable[..., Pool]) -> None:
    pool = mortal(timeout=0.5)
    began = time.monotonic()
    told, died = done(pool, ("hang", 3600))
    assert told.kind == "message" and died.kind == "died"
    assert "in in_a_function_with_a_name" in died.content and "in _hang" in died.content
    assert died.content.splitlines()[-1] == "it hung: no sign of life for 0.5 s, so its process was killed"
    assert time.monotonic() - began < SECONDS
    assert done(pool, ("double", 1))[0].content == 2


def test_a_job_longer_than_the_timeout_lives_by_its_signs_of_life(mortal: Callable[..., Pool]) -> None:
    said = done(mortal(timeout=1.0), ("alive", 2.5))
    assert (said[-1].kind, said[-1].content) == ("done", "lived")


def test_a_silence_that_was_announced_is_no_hang_until_the_next_sign_of_life(mortal: Callable[..., Pool]) -> None:
    said = done(mortal(timeout=0.3), ("announce", SECONDS / 2))
    assert [event.content for event in said[:-1]] == ["silent from here", "back"]
    assert said[-1].content.endswith("it hung: no sign of life for 0.3 s, so its process was killed")


def test_what_was_said_while_nobody_listened_is_no_hang(mortal: Callable[..., Pool]) -> None:
    pool = mortal(2, timeout=0.5)
    alive, other = ready(pool, 2)  # received in this order
    pool.give(alive, "alive", ("alive", 2.0))
    pool.give(other, "other", ("double", 1))
    ends = []
    while pool.busy():
        for event in pool.events(0.05):
            if event.kind != "message":
                ends.append((event.job, event.kind))
                time.sleep(1.0)
    assert ends == [("other", "done"), ("alive", "done")]


def test_an_idle_worker_never_hangs(mortal: Callable[..., Pool]) -> None:
    pool = mortal(timeout=0.2)
    (worker,) = ready(pool)
    time.sleep(0.5)
    assert list(pool.events(0)) == [] and worker.process.is_alive()


def test_starts_that_lead_nowhere_are_given_up_with_what_they_print(mortal: Callable[..., Pool]) -> None:
    pool, started = mortal(prepare=prepare_and_die), set()
    with pytest.raises(RuntimeError, match=r"before they are ready:\nno room for the weights\n.* exit status 7"):
        while True:
            pool.start(1)
            started |= {worker.process.pid for worker in pool.workers.values()}
            list(pool.events(0.05))
    assert len(started) == FUTILE_STARTS


def test_a_signal_reaches_the_workers_that_work_and_no_others(mortal: Callable[..., Pool], tmp_path: Path) -> None:
    """SIGTERM would kill an idle worker (it has no handler) and a starting one (counted as a failed start)."""
    pool = mortal(2 + FUTILE_STARTS)
    busy, idle = ready(pool, 2)
    pool.give(busy, "busy", ("stop", str(tmp_path / "checkpoint")))
    until(lambda: bool(said := list(pool.events(0.05))) and said[0].content == "started")
    pool.start(2 + FUTILE_STARTS)
    pool.signal(signal.SIGTERM)
    said = until(lambda: not pool.busy(), pool)
    assert kinds(said) == ["done"] and (tmp_path / "checkpoint").exists()
    until(lambda: len(pool.idle()) == 2 + FUTILE_STARTS, pool)
    assert pool.workers[idle.slot] is idle


def test_close_lets_a_busy_worker_write_its_checkpoint(mortal: Callable[..., Pool], tmp_path: Path) -> None:
    pool = mortal()
    (worker,) = ready(pool)
    pool.give(worker, "busy", ("stop", str(tmp_path / "checkpoint")))
    until(lambda: kinds(list(pool.events(0.05))) == ["message"])
    began = time.monotonic()
    pool.close()
    assert (tmp_path / "checkpoint").exists()
    assert time.monotonic() - began < CLOSE_SECONDS, "it waits no longer than for the checkpoint"


def test_close_leaves_no_process_and_no_folder(mortal: Callable[..., Pool]) -> None:
    pool = mortal(3)
    busy, _ = ready(pool, 2)
    pool.give(busy, "busy", ("hang", 3600))
    pool.start(3)  # the third is starting
    processes = [psutil.Process(worker.process.pid) for worker in pool.workers.values()]
    assert len(processes) == 3 and pool.folder.is_dir()
    pool.close()
    assert not any(process.is_running() for process in processes)
    assert not pool.folder.exists() and not pool.workers
    pool.close()  # called again at exit


def test_a_folder_that_a_cleaner_removes_costs_no_job(mortal: Callable[..., Pool]) -> None:
    pool = mortal(2)
    (first,) = ready(pool)
    shutil.rmtree(pool.folder)
    assert kinds(done(pool, ("double", [1]), worker=first)) == ["done"]
    pool.start(2)
    shutil.rmtree(pool.folder, ignore_errors=True)
    until(lambda: len(pool.idle()) == 2, pool)
    for worker in pool.idle():
        assert kinds(done(pool, ("double", [1]), worker=worker)) == ["done"]
    (died,) = done(pool, ("leave", 3), worker=pool.idle()[0])
    assert died.kind == "died"
