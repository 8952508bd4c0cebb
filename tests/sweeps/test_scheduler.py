"""The scheduler on a real pool: every job has an outcome, and a dead worker costs its job one retry."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from loralab.sweeps.pool import Pool
from loralab.sweeps.scheduler import HELD_SECONDS, RETRIES, Job, Outcome, Scheduler
from tests.sweeps.jobs import prepare


@dataclass
class Memory:
    """Jobs in memory: the definition and outcome of each, and until when another process holds it."""

    payloads: dict[str, tuple[str, Any]]
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    held_until: dict[str, float] = field(default_factory=dict)
    written: list[tuple[str, str]] = field(default_factory=list)
    announced: list[str] = field(default_factory=list)

    def alike(self, key: str, others: Sequence[str]) -> list[str]:
        return [other for other in others if other[0] == key[0]]

    def done(self, key: str) -> Outcome | None:
        return self.outcomes.get(key)

    def held(self, key: str) -> bool:
        return time.monotonic() < self.held_until.get(key, 0)

    def payload(self, key: str) -> Any:
        return self.payloads[key]

    def ready(self, key: str) -> None:
        self.announced.append(key)

    def ended(self, key: str, result: Any, started: float) -> Outcome:
        assert started <= time.time()
        if result in ("stopped", "failed"):
            return Outcome(result)
        self.outcomes[key] = Outcome("success", value=result)
        return self.outcomes[key]

    def failed(self, key: str, reason: str, started: float) -> Outcome:
        assert started <= time.time()
        self.written.append((key, reason))
        return Outcome("failed", text=reason)


@dataclass
class Late(Memory):
    """A job's record exists once its worker has created the file of that name in the folder."""

    folder: Path = Path()

    def done(self, key: str) -> Outcome | None:
        return Outcome("success", value="recorded") if (self.folder / key).exists() else None


@dataclass
class Recorder:
    """An observer that stores all events and calls `after` for each."""

    lines: list[tuple[Any, ...]] = field(default_factory=list)
    after: Callable[[tuple[Any, ...]], None] = lambda line: None

    def _keep(self, *line: Any) -> None:
        self.lines.append(line)
        self.after(line)

    def began(self, slot: int, job: Job) -> None:
        self._keep("began", job.key, slot)

    def message(self, slot: int, content: Any) -> None:
        self._keep("message", content)

    def left(self, slot: int) -> None:
        self._keep("left", slot)

    def ended(self, job: Job, outcome: Outcome) -> None:
        self._keep("ended", job.key, outcome.status)

    def retried(self, job: Job, reason: str) -> None:
        self._keep("retried", job.key, reason)

    def stopping(self, running: int) -> None:
        self._keep("stopping", running)

    def keys(self, kind: str) -> list[str]:
        return [line[1] for line in self.lines if line[0] == kind]


@pytest.fixture(scope="module")
def pools() -> Iterator[dict[int, Pool]]:
    """Pools by their number of slots; the scheduler replaces dead workers."""
    made = {slots: Pool([{}] * slots, prepare, None, timeout=20) for slots in (1, 2)}
    yield made
    for pool in made.values():
        pool.close()


@pytest.fixture
def pool(pools: dict[int, Pool]) -> Pool:
    return pools[1]


def scheduler(
    pool: Pool,
    payloads: dict[str, tuple[str, Any]],
    *,
    source: Memory | None = None,
    interrupted: Callable[[], bool] = lambda: False,
    stop_on_error: bool = False,
    pack: int = 1,
) -> tuple[Scheduler, Memory, Recorder]:
    """A scheduler for these jobs (earlier ones take longer), with its jobs in memory and its observer."""
    source, observer = source or Memory(payloads), Recorder()
    jobs = [Job(key, f"job {key}", float(len(payloads) - i), known=True) for i, key in enumerate(payloads)]
    made = Scheduler(
        jobs,
        pool=pool,
        source=source,
        observer=observer,
        interrupted=interrupted,
        stop_on_error=stop_on_error,
        pack=pack,
    )
    return made, source, observer


def statuses(outcomes: dict[str, Outcome]) -> dict[str, str]:
    return {key: outcome.status for key, outcome in outcomes.items()}


def test_no_jobs_are_no_work_and_start_no_worker() -> None:
    pool = Pool([{}], prepare, None, timeout=None)
    assert scheduler(pool, {})[0].run() == {} and not pool.workers
    pool.close()


def test_the_longest_jobs_begin_first(pool: Pool) -> None:
    seconds = {"short": 1.0, "longest": 60.0, "middle": 5.0, "like middle": 5.0}
    jobs = [Job(key, key, length, known=False) for key, length in seconds.items()]
    source, observer = Memory(dict.fromkeys(seconds, ("double", 1))), Recorder()
    outcomes = Scheduler(
        jobs, pool=pool, source=source, observer=observer, interrupted=lambda: False, stop_on_error=False
    ).run()
    assert observer.keys("began") == ["longest", "middle", "like middle", "short"]
    assert {outcome.value for outcome in outcomes.values()} == {2}


def test_the_book_hears_which_job_is_next_while_the_workers_are_busy(pool: Pool) -> None:
    run, source, observer = scheduler(pool, {"a": ("alive", 0.3), "b": ("alive", 0.3), "c": ("double", 1)})
    announced: dict[str, str] = {}  # by the job that was running
    observer.after = lambda line: announced.update({line[1]: source.announced[-1]}) if line[0] == "ended" else None
    run.run()
    assert announced == {"a": "b", "b": "c", "c": "c"}


def test_two_slots_work_at_once(pools: dict[int, Pool]) -> None:
    run, _, observer = scheduler(pools[2], {"a": ("alive", 0.5), "b": ("alive", 0.5)})
    assert statuses(run.run()) == {"a": "success", "b": "success"}
    first_end = [line[0] for line in observer.lines].index("left")
    began = [line[1:] for line in observer.lines[:first_end] if line[0] == "began"]
    assert [key for key, _ in began] == ["a", "b"] and {slot for _, slot in began} == {0, 1}


def test_what_a_job_tells_is_shown_between_its_beginning_and_its_end(pool: Pool) -> None:
    run, _, observer = scheduler(pool, {"a": ("tell", [{"step": 1}, {"step": 2}])})
    run.run()
    kinds = [
        ("began", "a", 0),
        ("message", {"step": 1}),
        ("message", {"step": 2}),
        ("left", 0),
        ("ended", "a", "success"),
    ]
    assert observer.lines == kinds


def test_a_worker_that_dies_costs_its_job_one_retry_and_the_others_nothing(pool: Pool, tmp_path: Path) -> None:
    payloads = {"dies once": ("leave once", str(tmp_path / "there")), "a": ("double", 1), "b": ("double", 2)}
    run, source, observer = scheduler(pool, payloads)
    assert statuses(run.run()) == dict.fromkeys(payloads, "success")
    assert run.outcomes["dies once"].value == "at last"
    assert observer.keys("began") == ["dies once", "dies once", "a", "b"]
    (line,) = [line for line in observer.lines if line[0] == "retried"]
    assert line[1] == "dies once" and "exit status 3" in line[2]
    assert source.written == []


def test_a_job_that_dies_again_has_failed_with_its_reason_and_the_others_go_on(pool: Pool) -> None:
    run, source, observer = scheduler(pool, {"dies": ("leave", "why"), "a": ("double", 1)})
    assert statuses(run.run()) == {"dies": "failed", "a": "success"}
    assert run.outcomes["dies"].text == "why\nits process ended with exit status 3"
    assert observer.keys("began").count("dies") == 1 + RETRIES
    assert [key for key, _ in source.written] == ["dies"]


def test_an_exception_is_no_accident_and_is_not_tried_again(pool: Pool) -> None:
    run, source, observer = scheduler(pool, {"raises": ("raise", "a bug"), "a": ("double", 1)})
    assert statuses(run.run()) == {"raises": "failed", "a": "success"}
    assert observer.keys("began") == ["raises", "a"]
    ((key, reason),) = source.written
    assert key == "raises" and reason.endswith("RuntimeError: a bug\n")


def test_a_hang_has_its_retry_too() -> None:
    pool = Pool([{}], prepare, None, timeout=0.3)
    run, _, observer = scheduler(pool, {"hangs": ("hang", 3600), "a": ("double", 1)})
    assert statuses(run.run()) == {"hangs": "failed", "a": "success"}
    pool.close()
    assert observer.keys("began") == ["hangs", "hangs", "a"]
    assert "no sign of life" in run.outcomes["hangs"].text


def test_a_worker_that_dies_with_its_record_written_did_its_job(pool: Pool, tmp_path: Path) -> None:
    payloads = {"a": ("leave once", str(tmp_path / "a"))}
    run, _, observer = scheduler(pool, payloads, source=Late(payloads, folder=tmp_path))
    assert run.run() == {"a": Outcome("success", value="recorded")}
    assert observer.keys("retried") == []


def test_a_worker_that_dies_while_it_stops_did_its_job_if_its_record_is_written(
    pools: dict[int, Pool], tmp_path: Path
) -> None:
    payloads = {key: ("stop and leave", str(tmp_path / file)) for key, file in (("a", "a"), ("b", "checkpoint"))}
    run, _, observer = scheduler(pools[2], payloads, source=Late(payloads, folder=tmp_path))
    run.interrupted = lambda: observer.lines.count(("message", "started")) == 2
    assert run.run() == {"a": Outcome("success", value="recorded"), "b": Outcome("stopped")}


def test_a_worker_told_to_stop_by_another_is_a_death_like_any(pool: Pool, tmp_path: Path) -> None:
    run, _, observer = scheduler(pool, {"a": ("stop", str(tmp_path / "checkpoint"))})
    observer.after = lambda line: pool.signal(signal.SIGTERM) if line == ("message", "started") else None
    assert statuses(run.run()) == {"a": "failed"}
    assert observer.keys("began") == ["a", "a"] and "asked to stop" in run.outcomes["a"].text


def test_stop_on_error_has_the_others_write_their_checkpoints(pools: dict[int, Pool], tmp_path: Path) -> None:
    payloads = {"runs": ("stop", str(tmp_path / "checkpoint")), "raises": ("raise", ""), "later": ("double", 1)}
    run, _, observer = scheduler(pools[2], payloads, stop_on_error=True)
    assert statuses(run.run()) == {"runs": "stopped", "raises": "failed", "later": "stopped"}
    assert (tmp_path / "checkpoint").exists()
    assert observer.keys("began") == ["runs", "raises"]
    assert ("stopping", 1) in observer.lines


def test_the_first_failure_in_a_pack_stops_the_others_of_it(pool: Pool, tmp_path: Path) -> None:
    payloads = {"a1": ("fail", None), "a2": ("stop", str(tmp_path / "checkpoint"))}
    run, _, observer = scheduler(pool, payloads, stop_on_error=True, pack=2)
    assert statuses(run.run()) == {"a1": "failed", "a2": "stopped"}
    assert (tmp_path / "checkpoint").exists()
    assert [line[1] for line in observer.lines if line[0] == "left"] == [0, 1]


def test_an_interrupt_stops_what_runs_and_begins_nothing_more(pools: dict[int, Pool], tmp_path: Path) -> None:
    payloads = {key: ("stop", str(tmp_path / key)) for key in "abcd"}
    run, _, observer = scheduler(pools[2], payloads)
    run.interrupted = lambda: observer.lines.count(("message", "started")) == 2
    assert statuses(run.run()) == dict.fromkeys("abcd", "stopped")
    assert observer.keys("began") == ["a", "b"]
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_a_job_held_elsewhere_is_left_for_later_and_taken_when_it_is_free(pool: Pool) -> None:
    run, source, observer = scheduler(pool, {"held": ("double", 1), "free": ("double", 2)})
    source.held_until["held"] = time.monotonic() + 1.5 * HELD_SECONDS
    assert statuses(run.run()) == {"held": "success", "free": "success"}
    assert observer.keys("began") == ["free", "held"]
    assert source.written == []


def test_a_job_that_another_sweep_did_meanwhile_is_not_run(pool: Pool) -> None:
    run, source, observer = scheduler(pool, {"first": ("double", 1), "theirs": ("double", 2)})
    theirs = Outcome("diverged", value=0.5)
    observer.after = lambda line: source.outcomes.update(theirs=theirs) if line[0] == "began" else None
    outcomes = run.run()
    assert outcomes["theirs"] == Outcome("diverged", value=0.5, elsewhere=True)
    assert not outcomes["first"].elsewhere
    assert observer.keys("began") == ["first"] and ("ended", "theirs", "diverged") in observer.lines


def test_a_failure_found_while_handing_out_stops_the_rest_too(pool: Pool) -> None:
    """For example a damaged record: no job is handed out after it."""
    payloads = dict.fromkeys(("first", "damaged", "later"), ("double", 1))
    run, source, observer = scheduler(pool, payloads, stop_on_error=True)
    damaged = Outcome("failed", text="damaged")
    observer.after = lambda line: source.outcomes.update(damaged=damaged) if line[:2] == ("ended", "first") else None
    assert statuses(run.run()) == {"first": "success", "damaged": "failed", "later": "stopped"}
    assert observer.keys("began") == ["first"]


def test_jobs_that_are_alike_are_given_out_in_packs(pool: Pool) -> None:
    payloads = {key: ("tell", [key]) for key in ("a1", "b1", "a2", "a3", "a4", "b2")}
    run, _, observer = scheduler(pool, payloads, pack=3)
    assert statuses(run.run()) == dict.fromkeys(payloads, "success")
    began = [line[1:] for line in observer.lines if line[0] == "began"]
    assert began == [("a1", 0), ("a2", 1), ("a3", 2), ("b1", 0), ("b2", 1), ("a4", 0)]
    assert {line[1] for line in observer.lines if line[0] == "message"} == set(payloads)


def test_a_pack_is_its_workers_share(pools: dict[int, Pool]) -> None:
    payloads = {f"a{i}": ("alive", 0.3) for i in range(4)}
    run, _, observer = scheduler(pools[2], payloads, pack=4)
    run.run()
    began = [line[2] for line in observer.lines if line[0] == "began"]
    assert sorted(began) == [0, 1, 2, 3], "two packs of two, each in a slot of the pool"


def test_a_job_that_leaves_its_pack_is_tried_again_while_the_pack_works(pools: dict[int, Pool], tmp_path: Path) -> None:
    payloads = {
        "a1": ("stopped once", str(tmp_path / "asked")),
        "a2": ("alive", 2),
        "a3": ("double", 1),
        "a4": ("double", 1),
    }
    run, _, observer = scheduler(pools[2], payloads, pack=2)
    assert statuses(run.run()) == dict.fromkeys(payloads, "success")
    ended = observer.keys("ended")
    assert observer.keys("retried") == ["a1"] and ended.index("a1") < ended.index("a2")


def test_a_pack_leaves_out_what_is_done_or_held(pool: Pool) -> None:
    run, source, observer = scheduler(pool, {f"a{i}": ("double", i) for i in range(4)}, pack=4)
    source.outcomes["a1"], source.held_until["a2"] = Outcome("success"), time.monotonic() + 1
    assert statuses(run.run()) == {f"a{i}": "success" for i in range(4)}
    assert observer.keys("began") == ["a0", "a3", "a2"]


@pytest.mark.parametrize(("broken", "reason"), [(("leave", "why"), "why"), (("raise", "a bug"), "a bug")])
def test_what_a_pack_dies_of_costs_those_that_have_not_ended_one_retry_each_alone(
    broken: tuple[str, str], reason: str, pool: Pool
) -> None:
    run, source, observer = scheduler(pool, {"a1": ("double", 1), "a2": broken, "a3": ("double", 3)}, pack=3)
    assert statuses(run.run()) == {"a1": "success", "a2": "failed", "a3": "success"}
    assert sorted(observer.keys("retried")) == ["a2", "a3"] and reason in source.written[0][1]
    again = [line[0] for line in observer.lines].index("retried")
    assert {line[2] for line in observer.lines[again:] if line[0] == "began"} == {0}
