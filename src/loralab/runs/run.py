"""The composition root: Config -> a run directory and its record.

`run` returns the stored record of a run that is finished, or paused where it should be; otherwise it trains, from the
run's checkpoint if there is one. Under torchrun all processes train one run: rank 0 plans and writes, the others only
compute.
"""

import contextlib
import os
import time
import traceback
from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeVar, cast

from torch import Tensor

from loralab import tasks
from loralab.config.keys import config_values
from loralab.config.schema import Config
from loralab.config.shares import is_due, pause_step
from loralab.errors import UserError
from loralab.methods.registry import CATALOGUE
from loralab.runs.batch import RunBatch, batch_of
from loralab.runs.console import Console
from loralab.runs.objective import Predictor
from loralab.runs.plan import Plan, make_store, plan
from loralab.runs.prepare import Prepared, prepare
from loralab.runs.rates import advice
from loralab.runs.record import as_yaml, fail, header, parameters_of, run_results
from loralab.store.answers import write_after, write_before
from loralab.store.labels import labels_of
from loralab.store.leftovers import remove_old_temporaries
from loralab.store.provenance import code_version
from loralab.store.record import Pause, PausedRecord, Record, RunEnding, Scores, SplitScores
from loralab.store.run_directory import final_status
from loralab.store.trackers import NoTracker, Tracker, open_tracker
from loralab.training import optim
from loralab.training.distributed import Ranks, join
from loralab.training.loop import Progress, complete, exploded, train
from loralab.training.session import Session, open_session, stored_state
from loralab.training.signals import Interrupts
from loralab.training.threads import threads_restored

__all__ = ["Training", "run", "training"]

Result = TypeVar("Result")
Training = Generator[RunBatch, Tensor, Result]
"""Yields each batch whose gradient is due, and is sent its loss once the gradient is in `grad` (training/loop.py)."""


def run(config: Config, *, wait: bool = False, console: Console | None = None) -> Record | PausedRecord:
    """The record of `config`'s run: the stored one if it has come far enough; else the run is trained, or resumed.

    It is paused if the run has not ended at `train.pause_at`; with null there it is a Record. With `train.again`, a run
    that has ended is removed and trained once more.

    wait: wait for another process that holds the run, rather than raise UserError. An exception in training is
    recorded as `failed` and raised again; on a signal, Interrupted is raised after a checkpoint is written. A run whose
    directory is removed while it trains ends in LostRunError and writes nothing more.
    """
    console = console or Console.for_terminal()
    with Interrupts() as interrupts, threads_restored(), join(config.train.device) as ranks:
        if not ranks.leads:
            return complete(_follow(ranks, interrupts))
        return complete(training(config, wait, console, interrupts, ranks))


def training(
    config: Config, wait: bool, console: Console, interrupts: Interrupts, ranks: Ranks
) -> Training[Record | PausedRecord]:
    """The training of rank 0 that `run` completes."""

    def alive() -> None:
        interrupts.check()
        console.alive()

    unwritable = _made(Path(config.store))
    planned = plan(config)
    done = None if planned.again else planned.reached()
    if done is None:
        if unwritable is not None:
            raise unwritable
        remove_old_temporaries(Path(config.store))
        with planned.directory.hold(wait=wait, check=alive):
            if planned.again:
                planned.directory.remove_ended()
            done = planned.reached()  # by the other process
            if done is None:
                ranks.of_first((planned, None))
                record = yield from _lead(planned, console, interrupts, ranks)
                return ranks.of_first(record)
    ranks.of_first((planned, done))
    planned.directory.tidy()
    planned.label()
    console.already_done(done, planned.directory.path)
    _advise(console, planned, done)
    return done


def _advise(console: Console, planned: Plan, record: Record | PausedRecord) -> None:
    if record["status"] == "diverged":
        console.advise(advice(planned.config, width=planned.source.width, steps=planned.steps))


def _made(store: Path) -> UserError | None:
    """Makes the store; the error where it cannot be written to, for a run that is finished needs no writing."""
    try:
        make_store(store)
    except UserError as error:
        return error
    return None


def _follow(ranks: Ranks, interrupts: Interrupts) -> Training[Record | PausedRecord]:
    """Computes this rank's part of the run that rank 0 plans, without writing; returns the record of rank 0."""
    first: Any = None
    planned, record = ranks.of_first(first)
    if record is None:
        with Path(os.devnull).open("w") as nowhere:
            console = Console(nowhere, nowhere)
            yield from _train(ranks.agreed(lambda: prepare(planned, console, ranks)), console, interrupts)
        record = ranks.of_first(first)
    return cast(Record | PausedRecord, record)


def _lead(planned: Plan, console: Console, interrupts: Interrupts, ranks: Ranks) -> Training[Record | PausedRecord]:
    """Trains the run that this process holds, then writes its record, also for a failure."""
    started = time.time()
    head = header(planned, started)
    if planned.warning is not None:
        console.warn(planned.warning)
    try:
        prepared = ranks.agreed(lambda: prepare(planned, console, ranks))
        planned.directory.begin(as_yaml(planned.config))
        planned.label()
        results = yield from _train(prepared, console, interrupts)
        record = cast(Record | PausedRecord, {**head, **results, "ended": time.time()})
    except UserError:
        raise
    except Exception:  # any error is recorded and raised again
        planned.directory.check()  # one that is gone gets no record
        fail(planned, traceback.format_exc(), started=started)
        raise
    planned.directory.finish(record)
    console.finished(record, planned.directory.path)
    _advise(console, planned, record)
    return record


def _train(prepared: Prepared, console: Console, interrupts: Interrupts) -> Training[RunEnding | Pause]:
    """Trains to the last step or the pause, from the checkpoint if there is one; at the end, tests and saves."""
    planned, objective, trained = prepared.planned, prepared.objective, prepared.trained
    config = planned.config
    with open_session(
        trained,
        planned.directory,
        stored_state(planned.directory, prepared.ranks),
        name=planned.directory.path.name,
        steps=prepared.steps,
        groups=prepared.groups,
        seed=config.data_seed,  # for dropout
        tracker=_tracker(prepared) if prepared.ranks.leads else NoTracker(),
        workers=prepared.workers,
        checkpoint_seconds=config.train.checkpoint_seconds,
        screen=console,
        interrupts=interrupts,
        kept={"run": planned.directory.hash},
    ) as session:
        progress = session.progress
        if session.journal.mirrored is not None:
            console.mirrored(session.journal.mirrored)
        if progress.step == 0:
            _answer_untrained(prepared, session)

        def fetch(step: int) -> RunBatch:
            session.journal.step()
            return batch_of(prepared, session, prepared.order.batch(step))

        yield from train(
            prepared.model,
            trained.optimizer,
            steps=prepared.steps,
            fetch=fetch,
            factor=optim.schedule(cast(Any, config.optim.schedule), warmup=config.optim.warmup, steps=prepared.steps),
            scaler=trained.scaler,
            clip=config.optim.clip,
            log_every=config.train.log_every,
            progress=progress,
            evaluation_due=lambda step: _evaluation_due(prepared, step),
            evaluate=lambda _: _validate(prepared, session),
            log=lambda _, loss: session.log("train", {"loss": loss}),
            checkpoint=lambda _: session.between_steps(),
            probing=prepared.probe(lambda _, values: session.log("probe", values)),
            start=objective.start("train"),
            until=pause_step(config.train.pause_at, prepared.steps),
            ended=lambda progress: _ended_early(prepared, progress),
        )
        session.save()
        validation: SplitScores = {"best": progress.best, "last": progress.last}
        early = _ended_early(prepared, progress)
        if progress.step < prepared.steps and not progress.diverged and not early:
            reached = run_results(prepared, session, {"validation": validation})
            session.journal.summarise("paused", reached["metrics"])
            return {"status": "paused", "total_steps": prepared.steps, **reached}
        began = progress.elapsed()
        tests = {} if progress.diverged else _test(prepared, session)
        progress.evaluation_seconds += progress.elapsed() - began
        found = run_results(prepared, session, {"validation": validation, **tests})
        status = final_status(diverged=progress.diverged)
        session.journal.summarise(status, found["metrics"])
    ending = cast(RunEnding, {"status": status, **found})
    if early and not progress.diverged:
        ending["total_steps"] = prepared.steps
    return ending


def _tracker(prepared: Prepared) -> Tracker:
    """The run's tracker; a resumed run continues its page."""
    planned = prepared.planned
    config, directory, labels = planned.config, planned.directory, labels_of(planned.directory.path)
    store, counts = Path(config.store), parameters_of(prepared)
    return open_tracker(
        kind=config.tracker.name,
        mode=config.tracker.mode,
        name=labels.name or directory.path.name,
        run_id=directory.hash,
        config={**config_values(config), "code": code_version(store), "parameters": counts},
        directory=directory.path,
        store=store,
        project=config.tracker.project,
        entity=config.tracker.entity,
        group=config.tracker.group,
        tags=[*config.tracker.tags, *labels.tags],
    )


def _evaluation_due(prepared: Prepared, step: int) -> bool:
    config = prepared.planned.config.train
    if step == 0:
        return config.eval_first or prepared.steps == 0
    return is_due(step, config.eval_every or prepared.order.per_epoch, prepared.steps)


def _ended_early(prepared: Prepared, progress: Progress) -> bool:
    """Whether `train.patience` evaluations in a row, before the last step, were no better than the best."""
    patience, best = prepared.planned.config.train.patience, progress.best
    if patience is None or best is None or not best["step"] < progress.evaluated == progress.step < prepared.steps:
        return False
    return sum(_evaluation_due(prepared, step) for step in range(best["step"] + 1, progress.step + 1)) >= patience


def _predict(prepared: Prepared, session: Session, split: str) -> Any:
    """The objective's predictions of a split with the current weights."""
    by = Predictor(prepared.model, session.between_batches, session.workers, prepared.ranks)
    return prepared.objective.predict(split, by)


def _answer_untrained(prepared: Prepared, session: Session) -> None:
    """Writes the answers of the untrained model to a few test questions; a resumed run finds them there."""
    progress, directory = session.progress, prepared.planned.directory
    began = progress.elapsed()
    for split in _tests(prepared)[:1]:
        by = Predictor(prepared.model, session.between_batches, session.workers, prepared.ranks)
        samples = prepared.objective.samples(split, by)
        if samples and prepared.ranks.leads:
            directory.check()
            write_before(directory.answers, samples)
    progress.evaluation_seconds += progress.elapsed() - began


def _tests(prepared: Prepared) -> list[str]:
    return [split for split in prepared.objective.rows() if split.startswith("test")]


def _validate(prepared: Prepared, session: Session) -> None:
    """Logs the validation scores, and keeps the weights of the best step by the primary metric.

    At the end of training, also judges whether the last update broke the model: no training loss would show it.
    """
    progress, objective, metric = session.progress, prepared.objective, prepared.objective.metric
    predictions = _predict(prepared, session, "validation")
    scores = objective.scores("validation", predictions)
    progress.last = {"step": progress.step, **scores}
    progress.evaluated = progress.step
    better = progress.best is None or tasks.better(metric, scores[metric], progress.best[metric])
    if progress.step == prepared.steps or (not better and _ended_early(prepared, progress)):
        start = max(progress.first_loss or 0.0, objective.start("validation"))
        progress.diverged = exploded(scores["loss"], start) or not prepared.trained.is_finite()
    if better and not progress.diverged:  # weights that are of no use are the best of nothing
        progress.best = progress.last
        prepared.trained.keep_best()
    session.log("validation", scores)


def _test(prepared: Prepared, session: Session) -> dict[str, SplitScores]:
    """Scores of every test split at the last and the best validation step; also saves weights and predictions."""
    planned, objective, trained = prepared.planned, prepared.objective, prepared.trained
    best, last = session.progress.best, session.progress.step
    assert best is not None and trained.best is not None, "the last step is always evaluated"
    if prepared.ranks.leads:
        planned.directory.check()
        method = CATALOGUE[planned.config.method.name]
        with trained.at_best() if planned.config.train.keep == "best" else contextlib.nullcontext():
            method.save(prepared.backbone, planned.config, planned.directory.path / method.folder, planned.source.base)
    names = _tests(prepared)
    at_last = {split: _predict(prepared, session, split) for split in names}
    at_best = at_last
    if best["step"] != last:
        with trained.at_best():  # an interrupt here still checkpoints the weights of the last step
            at_best = {split: _predict(prepared, session, split) for split in names}
    if prepared.ranks.leads:
        planned.directory.check()
        objective.write(planned.directory.predictions, {"last": at_last, "best": at_best})
        samples = [objective.samples_in(split, at_last[split]) for split in names[:1] if last > 0]
        for some in filter(None, samples):
            write_after(planned.directory.answers, some)

    def scored(split: str, step: int, predictions: dict[str, Any]) -> Scores:
        return {"step": step, **objective.scores(split, predictions[split])}

    return {
        split: {"best": scored(split, best["step"], at_best), "last": scored(split, last, at_last)} for split in names
    }
