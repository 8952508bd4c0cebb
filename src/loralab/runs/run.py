"""The composition root: a Config becomes a run directory and its record. The one file that knows all the others.

`run` gives the stored record, or trains: from the run's checkpoint, where there is one. Where torchrun started several
processes they train one run together: rank 0 does what a single one does, and the others compute and write nothing.
"""

import os
import time
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from loralab import device, tasks
from loralab.config.schema import METHODS, Config
from loralab.errors import UserError
from loralab.methods.lora import linear_factors
from loralab.methods.prompts import virtual_tokens
from loralab.methods.registry import CATALOGUE
from loralab.runs.build import adapted_backbone, objective, read_task
from loralab.runs.console import Console
from loralab.runs.objective import Predictor
from loralab.runs.plan import Plan, make_store, plan
from loralab.runs.record import as_yaml, fail, header
from loralab.store.metrics_log import Journal, open_journal
from loralab.store.trackers import open_tracker
from loralab.text import finite
from loralab.training import checkpoint, optim
from loralab.training.batches import Order, by_length
from loralab.training.distributed import Ranks, join
from loralab.training.loop import Probing, Progress, train
from loralab.training.probes import ROWS_AT_ONCE, probing
from loralab.training.signals import Interrupted, Interrupts
from loralab.training.threads import Workers

__all__ = ["run"]


def run(config: Config, *, wait: bool = False, console: Console | None = None) -> dict[str, Any]:
    """The record of `config`'s run: the stored one if it is done, else trained now, from its checkpoint if it has one.

    wait: whether to wait for another process that holds the run, rather than raise UserError. An exception while it
    trains is recorded as `failed` and raised; Interrupted is raised once a checkpoint is written.
    """
    console = console or Console.for_terminal()
    with Interrupts() as interrupts, join(config.train.device) as ranks:
        if not ranks.leads:
            return _follow(ranks, interrupts)

        def alive() -> None:
            interrupts.check()
            console.alive()

        make_store(Path(config.store))
        planned = plan(config)
        done = planned.directory.finished()
        if done is None:
            with planned.directory.hold(wait=wait, check=alive):
                done = planned.directory.finished()  # by the process that was waited for
                if done is None:
                    ranks.of_first((planned, None))
                    return ranks.of_first(_execute(planned, console, interrupts, ranks))
        ranks.of_first((planned, done))
    console.already_done(done, planned.directory.path)
    return done


def _follow(ranks: Ranks, interrupts: Interrupts) -> dict[str, Any]:
    """The record, as rank 0 gives it, of the run that it plans; this rank computes its part, and writes nothing."""
    first: Any = None
    planned, record = ranks.of_first(first)
    if record is None:
        with Path(os.devnull).open("w") as nowhere:
            ranks.agreed(lambda: _Run(planned, Console(nowhere, nowhere), interrupts, ranks)).execute()
        record = ranks.of_first(first)
    return cast(dict[str, Any], record)


def _execute(planned: Plan, console: Console, interrupts: Interrupts, ranks: Ranks) -> dict[str, Any]:
    started = time.time()
    head = header(planned, started)
    if planned.warning is not None:
        console.warn(planned.warning)
    try:
        prepared = ranks.agreed(lambda: _Run(planned, console, interrupts, ranks))
        planned.directory.begin(as_yaml(planned.config))
        record = head | prepared.execute() | {"ended": time.time()}
    except UserError:
        raise
    except Exception:  # whatever it was, it is recorded, and raised again
        fail(planned, traceback.format_exc(), started=started)
        raise
    planned.directory.finish(record)
    console.finished(record, planned.directory.path)
    return record


class _Run:
    """One run in this process: build, resume, train, test, save; gives the record, which its caller writes last."""

    def __init__(self, planned: Plan, console: Console, interrupts: Interrupts, ranks: Ranks) -> None:
        began = time.monotonic()
        self.planned, self.console, self.interrupts, self.ranks = planned, console, interrupts, ranks
        self.directory = planned.directory
        config = self.config = planned.config
        console.loading(config.model.name, config.task.name)
        self.threads = device.prepare(planned.device, threads=config.train.threads)
        with ranks.in_turn():
            task = read_task(planned)
        self.backbone = adapted_backbone(planned, task)
        for note in self.backbone.notes:
            console.warn(note)
        self.model = cast(torch.nn.Module, self.backbone.model)
        longest = self.backbone.tokenizer.model_max_length
        if (virtual := virtual_tokens(self.model)) is not None:  # they take positions, too
            longest -= virtual.tokens
        if config.train.max_length > longest:
            beside = "" if virtual is None else f" beside the virtual ones (prompt.tokens={virtual.tokens})"
            raise UserError(
                f"train.max_length: got {config.train.max_length}; {config.model.name} takes at most {longest} tokens"
                f"{beside}"
            )
        decodes = task.kind == "generation" and not self.backbone.seq2seq  # its answers follow the text
        if decodes and config.train.max_length + config.generate.max_new_tokens > longest:
            raise UserError(
                f"train.max_length + generate.max_new_tokens: got {config.train.max_length} + "
                f"{config.generate.max_new_tokens}; {config.model.name} takes at most {longest} tokens, text and "
                "answer together; lower one of the two"
            )
        with ranks.in_turn():
            self.objective = objective(planned, task, self.backbone)
        rates = {key: getattr(config.optim, key) for key in ("lr", "head_lr", "embedding_lr", "weight_decay")}
        # Where nothing is A or B there is no lr_B: the ratio, or the reference's groups, would give it to biases.
        has_lora = "lora" in METHODS[config.method.name]
        ratio, layout = (config.lora.ratio, config.optim.groups) if has_lora else (1.0, "roles")
        groups = optim.param_groups(self.model, head=self.backbone.head, ratio=ratio, layout=cast(Any, layout), **rates)
        self.groups = optim.group_table(groups)
        self.trained = checkpoint.Trained(
            weights={name: p for name, p in self.model.named_parameters() if p.requires_grad},
            optimizer=optim.adamw(groups, betas=config.optim.betas, eps=config.optim.eps),
            scaler=torch.amp.GradScaler(planned.device.type, enabled=config.train.precision == "fp16"),
            ranks=ranks,
        )
        self.order = Order(
            self.objective.lengths("train"),
            batch_size=config.train.batch_size,
            seed=config.data_seed,
            bucketing=config.train.bucketing,
        )
        self.steps = config.train.steps or max(1, round(cast(float, config.train.epochs) * self.order.per_epoch))
        if config.optim.warmup >= self.steps:
            raise UserError(
                f"optim.warmup: got {config.optim.warmup:g} steps, and the run has {self.steps}; warm up for fewer"
            )
        self.evaluate_every = config.train.eval_every or self.order.per_epoch
        self.probing = self._probing()
        self.set_up_seconds = time.monotonic() - began

    def execute(self) -> dict[str, Any]:
        state = self.ranks.of_first(checkpoint.load(self.directory.checkpoint) if self.ranks.leads else None)
        self.trained.begin(self.config.data_seed)  # dropout; a checkpoint brings its own state
        with self._open(state) as progress:
            train(
                self.model,
                self.trained.optimizer,
                steps=self.steps,
                fetch=self._fetch,
                loss_of=self.objective.loss,
                factor=optim.schedule(
                    cast(Any, self.config.optim.schedule), warmup=self.config.optim.warmup, steps=self.steps
                ),
                scaler=self.trained.scaler,
                workers=self.workers,
                clip=self.config.optim.clip,
                log_every=self.config.train.log_every,
                progress=progress,
                evaluation_due=self._evaluation_due,
                evaluate=self._validate,
                log=lambda progress, loss: self._log(progress, "train", {"loss": loss}),
                checkpoint=self._between_steps,
                probing=self.probing,
                ranks=self.ranks,
            )
            self._save(progress)
            began = progress.elapsed()
            tests = {} if progress.diverged else self._test(progress)
            progress.evaluation_seconds += progress.elapsed() - began
            record = self._record(progress, tests)
            self.journal.summarise(record["metrics"])
        return record

    @contextmanager
    def _open(self, state: dict[str, Any] | None) -> Iterator[Progress]:
        """The run's files, tracker and console, open; what it had done, restored; an interrupt leaves a checkpoint."""
        self.saver = checkpoint.Checkpointer(self.directory.checkpoint, every=self.config.train.checkpoint_seconds)
        if state is not None:
            self.trained.restore(state)
        with self._journal(state) as self.journal, self._workers() as self.workers:
            progress = Progress() if state is None else Progress.from_state(state["progress"])
            self.console.started(self.directory.path.name, self.steps, self.groups, resumed_at=progress.step)
            try:
                yield progress
            except Interrupted:
                self._save(progress)
                self.console.interrupted(progress.step, self.steps)
                raise
            finally:
                self.console.close()

    def _journal(self, state: dict[str, Any] | None) -> AbstractContextManager[Journal]:
        if not self.ranks.leads:
            return nullcontext(Journal())
        config = asdict(self.config)
        settings = {**config["tracker"], "kind": self.config.tracker.name, "name": self.directory.path.name}
        tracker = open_tracker(**settings, run_id=self.directory.hash, config=config, directory=Path(self.config.store))
        return open_journal(self.directory, tracker, size=0 if state is None else state["metrics_size"])

    def _workers(self) -> Workers:
        """A worker a thread on a CPU; one for a rank, and where dropout draws from one generator in nobody's order."""
        draws = self.config.model.dropout > 0 or self.config.lora.dropout > 0
        return Workers(1 if draws or self.ranks.count > 1 or self.planned.device.type != "cpu" else self.threads)

    def _probing(self) -> Probing:
        every = self.config.probe.every if self.ranks.leads else None
        looked_at = (
            []
            if every is None
            else by_length(self.objective.lengths("validation")[: self.config.probe.rows], batch_size=ROWS_AT_ONCE)
        )
        return probing(
            self.model,
            linear_factors(self.model),
            [self.objective.batch("validation", at) for at in looked_at],
            every=every,
            tell=lambda progress, values: self._log(progress, "probe", values),
        )

    def _evaluation_due(self, step: int) -> bool:
        if step == 0:
            return self.config.train.eval_first
        return step % self.evaluate_every == 0 or step == self.steps

    def _fetch(self, step: int) -> tuple[dict[str, Tensor], int]:
        self.journal.step()
        indices = self.order.batch(step)
        return self.objective.batch("train", indices), int(self.objective.lengths("train")[indices].sum())

    def _alive(self) -> None:
        self.ranks.agree(self.interrupts)
        self.console.alive()

    def _between_steps(self, progress: Progress) -> None:
        if self.ranks.agree(self.interrupts, due=self.saver.due()):
            self._save(progress)
        self.console.step(progress.step)

    def _save(self, progress: Progress) -> None:
        state = self.trained.capture()
        if self.ranks.leads:
            seen = self.journal.sync()
            self.saver.save({"progress": progress.to_state(), "metrics_size": seen, **state})

    def _log(self, progress: Progress, split: str, values: dict[str, float | None]) -> None:
        rates = {role: group["lr"] for group in self.trained.optimizer.param_groups for role in group["roles"]}
        line = {
            "step": progress.step,
            "split": split,
            "values": {name: finite(value) for name, value in values.items()},
            "lr_A": rates.get("A"),
            "lr_B": rates.get("B"),
            "seconds": round(progress.elapsed(), 3),
        }
        self.journal.line(line)
        if split != "probe":  # hundreds of values: for files, not for eyes
            self.console.line(line)

    def _predict(self, split: str) -> Any:
        return self.objective.predict(split, Predictor(self.model, self._alive, self.workers, self.ranks))

    def _validate(self, progress: Progress) -> None:
        scores = self.objective.scores("validation", self._predict("validation"))
        progress.last = {"step": progress.step, **scores}
        metric = self.objective.metric
        if progress.best is None or tasks.better(metric, scores[metric], progress.best[metric]):
            progress.best = progress.last
            self.trained.keep_best()
        self._log(progress, "validation", scores)

    def _test(self, progress: Progress) -> dict[str, Any]:
        """Scores of every test split at the last and the best validation step; writes weights and predictions."""
        if self.ranks.leads:
            method = CATALOGUE[self.config.method.name]
            method.save(self.backbone, self.config, self.directory.path / method.folder, self.planned.source.origin)
        assert progress.best is not None and self.trained.best is not None, "the last step is always evaluated"
        names = [split for split in self.objective.rows() if split.startswith("test")]
        steps = {"best": progress.best["step"], "last": progress.step}
        found = {"last": {split: self._predict(split) for split in names}}
        if steps["best"] == steps["last"]:
            found["best"] = found["last"]
        else:
            with self.trained.at_best():  # an interrupt in here checkpoints the last step's weights
                found["best"] = {split: self._predict(split) for split in names}
        if self.ranks.leads:
            self.objective.write(self.directory.predictions, found)
        return {
            split: {
                at: {"step": steps[at], **self.objective.scores(split, found[at][split])} for at in ("best", "last")
            }
            for split in names
        }

    def _record(self, progress: Progress, tests: dict[str, Any]) -> dict[str, Any]:
        head = [p for name in self.backbone.head for p in self.model.get_submodule(name).parameters()]
        parameters = {"total": self.model.parameters(), "trainable": self.trained.weights.values(), "head": head}
        validation = {"best": progress.best, "last": progress.last}
        return {
            "status": "diverged" if progress.diverged else "success",
            "error": None,
            "metrics": {"primary": self.objective.metric, "validation": validation, **tests},
            "steps": progress.step,
            "groups": self.groups,
            "parameters": {name: sum(p.numel() for p in some) for name, some in parameters.items()},
            "timing": {
                **progress.timing(),
                "set_up_seconds": self.set_up_seconds,
                "steps_executed": self.journal.executed,
            },
            "memory": device.memory_peak(self.planned.device),
            "device": device.describe(self.planned.device),
            "threads": self.threads,
            "ranks": self.ranks.count,
            "rows": self.objective.rows(),
        }
