"""The parent's side of a sweep: which run each job is, which runs are done, and their outcomes."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loralab.config.compose import Composer
from loralab.config.keys import config_values
from loralab.config.overrides import name_of, read
from loralab.config.schema import from_hydra
from loralab.errors import UserError
from loralab.runs.console import pause
from loralab.runs.pack_key import pack_key
from loralab.runs.plan import Plan, make_store, plan
from loralab.runs.record import fail
from loralab.store.leftovers import remove_old_temporaries
from loralab.store.record import PausedRecord, Record, split_scores
from loralab.sweeps.estimate import Estimator
from loralab.sweeps.run_worker import Result
from loralab.sweeps.scheduler import Job, Outcome
from loralab.text import figure

__all__ = ["RunJobs", "best_value"]


class RunJobs:
    """The runs of a sweep by the names of their directories. `keys` has the run of every job, in the order of the jobs.

    known: plans of jobs that were made before. Raises UserError, or what Hydra raises, for the first job that does not
    compose.
    """

    def __init__(
        self,
        composer: Composer,
        jobs: Sequence[Sequence[str]],
        *,
        first: int,
        known: Mapping[tuple[str, ...], Plan] | None = None,
    ) -> None:
        self.composer, self.first, self.known = composer, first, known or {}
        self.overrides: dict[str, Sequence[str]] = {}
        self.plans: dict[str, Plan] = {}
        self.numbers: dict[str, int] = {}
        self.keys: list[str] = []
        self.stores: set[Path] = set()
        self.again: set[str] = set()  # runs that train once more, and whose records do not count until they begin
        self.next: dict[str, Any] = {}  # the payload of the job that comes next
        self.pack_keys: dict[str, str | None] = {}
        self.shared = set.intersection(*(set(job) for job in jobs)) if len(jobs) > 1 else set()
        for number, overrides in enumerate(jobs, first):
            planned = self._planned(number, overrides)
            self._make_store(planned)
            key = planned.directory.path.name
            self.keys.append(key)
            self._refuse_other_pause(key, planned)
            self.plans.setdefault(key, planned)
            self.again |= {key} if planned.again else set()
            self.overrides.setdefault(key, overrides)
            self.numbers.setdefault(key, number)

    def title(self, key: str) -> str:
        """The overrides that differ between jobs."""
        own = [text for text in self.overrides[key] if text not in self.shared and not text.startswith("+sweeps=")]
        return " ".join(own) or key

    def settings(self, key: str) -> dict[str, str]:
        """The run's settings as they are typed, by key."""
        typed = ((name_of(read(text)), text.partition("=")[2]) for text in self.overrides[key] if text[:1] != "~")
        return {name: value for name, value in typed if name != "sweeps"}

    def jobs(self, keys: Sequence[str]) -> list[Job]:
        """These runs for the scheduler, with their expected durations."""
        times = Estimator(self.plans[keys[0]].directory.path.parent.parent) if keys else None
        found = []
        for key in keys:
            assert times is not None
            config = config_values(self.plans[key].config)
            seconds = times.seconds(config)
            likely = times.relative(config) if seconds is None else seconds
            found.append(Job(key, self.title(key), likely, known=seconds is not None))
        return found

    def warnings(self, keys: Sequence[str]) -> list[str]:
        """The warnings of these runs' plans, each once."""
        return list(dict.fromkeys(line for key in keys if (line := self.plans[key].warning) is not None))

    def done(self, key: str) -> Outcome | None:
        """The outcome of a run that is finished, or paused where its job pauses it or later."""
        if key in self.again:
            return None
        try:
            record = self.plans[key].reached()
        except UserError as error:  # a damaged record is kept: it may be all that is left of a run
            return Outcome("failed", text=str(error))
        if record is None:
            return None
        self.plans[key].directory.tidy()
        self.plans[key].label()
        return _outcome(record)

    def held(self, key: str) -> bool:
        return self.plans[key].directory.held()

    def alike(self, key: str, others: Sequence[str]) -> list[str]:
        """The runs that may be of one pack with it; those with its order of the data, hence of lengths, first."""
        if (kind := self._pack_key(key)) is None:
            return []
        order = self.plans[key].config.data_seed
        found = [other for other in others if self._pack_key(other) == kind]
        return sorted(found, key=lambda other: self.plans[other].config.data_seed != order)

    def _pack_key(self, key: str) -> str | None:
        if key not in self.pack_keys:
            self.pack_keys[key] = pack_key(self.plans[key])
        return self.pack_keys[key]

    def payload(self, key: str) -> Any:
        self.ready(key)
        if key in self.again:
            self.again.remove(key)
            with contextlib.suppress(UserError), self.plans[key].directory.hold(wait=False):  # else another trains it
                self.plans[key].directory.remove_ended()
        return self.next.pop(key)

    def ready(self, key: str) -> None:
        if key not in self.next:
            job, planned = self.composer.job(self.overrides[key], self.numbers[key]), self.plans[key]
            job.train.again = False  # a worker that dies goes on from its checkpoint
            if planned.source.key == "model.hub":  # the branch may move before a worker resolves it
                job.model.revision = planned.source.identity
            if planned.config.task.revision is not None:
                job.task.revision = planned.identity["task"]["data"]["data"]
            self.next = {key: job}

    def ended(self, key: str, result: Result, started: float) -> Outcome:
        if result.status == "stopped":
            return Outcome("stopped")
        if result.status == "lost":
            return Outcome("failed", text=result.error)
        if result.status == "failed":
            return self.failed(key, result.error, started)
        outcome = self.done(key)
        if outcome is None:  # its weights or data changed after it was planned
            return self.failed(key, "its worker trained another run: its weights or data have changed", started)
        return outcome

    def failed(self, key: str, reason: str, started: float) -> Outcome:
        planned = self.plans[key]
        try:
            with planned.directory.hold(wait=False):
                if (outcome := self.done(key)) is not None:  # another sweep has trained it
                    return outcome
                record = planned.directory.record()
                if record is None or record["ended"] < started:  # else the run recorded its failure
                    fail(planned, reason, started=started)
        except UserError:  # another sweep is training it and records the outcome
            pass
        except OSError as error:  # such as a full disk, which must not end the other runs
            reason += f"\n(and it could not be written down: {error})"
        return Outcome("failed", text=reason)

    def _make_store(self, planned: Plan) -> None:
        """Makes the run's store, once; one that cannot be written to is enough for a finished run."""
        store = Path(planned.config.store)
        if store in self.stores:
            return
        try:
            make_store(store)
        except UserError:
            if planned.directory.finished() is None:
                raise
        else:
            self.stores.add(store)
            remove_old_temporaries(store)

    def _refuse_other_pause(self, key: str, planned: Plan) -> None:
        first = self.plans.get(key, planned).config.train.pause_at
        if planned.config.train.pause_at != first:
            raise UserError(
                f"train.pause_at: got {first} and {planned.config.train.pause_at} for one run, {key}; "
                "give a sweep one of the two"
            )

    def _planned(self, number: int, overrides: Sequence[str]) -> Plan:
        if (known := self.known.get(tuple(overrides))) is not None:
            return known
        try:
            return plan(from_hydra(self.composer.settings(overrides)))
        except UserError as error:
            raise UserError(f"{error} (job {number}: {' '.join(overrides)})") from error


def best_value(record: Record | PausedRecord) -> float | None:
    """The primary metric at the best validation step: what a job returns to Hydra, for sweepers that search."""
    best = record["metrics"]["validation"]["best"]
    return None if best is None else best[record["metrics"]["primary"]]


def _outcome(record: Record | PausedRecord) -> Outcome:
    metrics = record["metrics"]
    scores = {split: s["last"] for split, s in split_scores(metrics).items()}
    figures = [f"{split} {figure(s[metrics['primary']])}" for split, s in scores.items() if s is not None]
    at = " ".join([metrics["primary"], *figures])
    if record["status"] == "diverged":
        at = f"at step {record['steps']}"
    elif record["status"] == "paused":
        at = pause(record)
    text = f"{at}  {record['timing']['seconds']:.1f} s"
    return Outcome(record["status"], value=best_value(record), text=text)
