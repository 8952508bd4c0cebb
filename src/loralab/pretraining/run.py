"""PretrainConfig -> a folder with a masked language model, a backbone for train.py: pretraining's composition root.

The loop, the optimizer, checkpoints and journals are those of a run; the folder is found by its name, and what it holds
is told by its record: <store>/pretrained/<name>/{config.yaml, metrics.jsonl, model/, record.json}.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from loralab import device, tasks
from loralab.config.pretrain import PretrainConfig
from loralab.errors import UserError
from loralab.files import atomic_directory
from loralab.methods import full
from loralab.methods.formats.plain import without_bars
from loralab.pretraining.corpus import SPECIALS, prepare, unigram_entropy
from loralab.pretraining.masking import masked
from loralab.pretraining.roberta import AtPositions, roberta
from loralab.runs.console import Console
from loralab.runs.plan import NUMERICS_VERSION, make_store
from loralab.store import provenance
from loralab.store.metrics_log import open_journal
from loralab.store.run_directory import RunDirectory
from loralab.store.trackers import open_tracker
from loralab.training import checkpoint, optim
from loralab.training.batches import Order
from loralab.training.distributed import launched
from loralab.training.evaluate import forward
from loralab.training.loop import Progress, train
from loralab.training.signals import Interrupted, Interrupts
from loralab.training.threads import Workers

__all__ = ["pretrain"]

DATA = tasks.TaskSettings("imdb")
HELDOUT_MASKS = 0  # seed of the masks of the held-out blocks: the same for every model
EVALUATION_BATCH = 64


def pretrain(config: PretrainConfig, *, wait: bool = False, console: Console | None = None) -> dict[str, Any]:
    """The record of the model that `config` names: the stored one if it is done, else trained now, from its checkpoint.

    wait: for another process that works on it, rather than raise UserError. Raises UserError where the folder holds a
    model of other settings; Interrupted once a checkpoint is written.
    """
    console = console or Console.for_terminal()
    if launched() > 1:
        raise UserError("pretrain.py trains in one process; start it without torchrun")
    make_store(Path(config.store))
    directory = RunDirectory(Path(config.store) / "pretrained" / config.name)
    place = device.pick_device(config.train.device)
    identity = _identity(config, device.pick_precision(config.train.precision, place, width=config.model.width))
    with Interrupts() as interrupts, directory.hold(wait=wait, check=interrupts.check):
        done = directory.finished()
        if done is not None:
            _refuse_other(directory, done["identity"], identity)
            console.already_done(done, directory.path)
            return done
        started = time.time()
        record = _Pretraining(config, identity, place, directory, console, interrupts).execute()
        head = {
            "name": config.name, "config": asdict(config), "identity": identity,
            "git": provenance.code_version(Path(config.store)), "versions": provenance.versions(),
        }  # fmt: skip
        record = head | record | {"started": started, "ended": time.time()}
        directory.finish(record)
    console.finished(record, directory.path)
    return record


def _identity(config: PretrainConfig, precision: str) -> dict[str, Any]:
    """All that determines the model, and nothing that does not."""
    values = asdict(config)
    for name in ("tracker", "store", "name"):
        del values[name]
    for name in ("device", "threads", "checkpoint_seconds"):
        del values["train"][name]
    values["train"]["precision"] = precision
    if config.train.steps is not None:
        values["train"]["epochs"] = None
    data = tasks.identity(DATA, cache=Path(config.store) / "cache")
    return {"numerics": NUMERICS_VERSION, "data": data, **values}


def _refuse_other(directory: RunDirectory, there: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raises UserError, with the first setting that differs, unless a folder's model is the one that is wanted."""
    some, other = _flat(there), _flat(wanted)
    key = next((key for key in other if some.get(key) != other[key]), None)
    if key is not None:
        raise UserError(
            f"name: {directory.path} holds a model with {key}={some.get(key)}, and {other[key]} is asked for; "
            "give this one another name=NAME, or remove that folder"
        )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


class _Pretraining:
    """One pretraining in this process; gives its record, which its caller completes and writes last."""

    def __init__(
        self,
        config: PretrainConfig,
        identity: dict[str, Any],
        place: torch.device,
        directory: RunDirectory,
        console: Console,
        interrupts: Interrupts,
    ) -> None:
        began = time.monotonic()
        self.config, self.identity, self.place = config, identity, place
        self.directory, self.console, self.interrupts = directory, console, interrupts
        console.loading(config.name, DATA.name)
        self.threads = device.prepare(place, threads=config.train.threads)
        train_texts, heldout = _texts(config)
        self.corpus = prepare(
            train_texts, heldout,
            vocabulary=config.corpus.vocabulary, length=config.corpus.length, cache=Path(config.store) / "cache",
        )  # fmt: skip
        self.vocabulary = len(self.corpus.tokenizer)
        own = {"vocabulary": self.vocabulary, "length": config.corpus.length, "seed": config.seed}
        self.model = AtPositions(roberta(config.model.width, layers=config.model.layers, **own))
        full.attach(self.model, head=(), device=place, dtype=device.DTYPES[identity["train"]["precision"]])
        self.model.to(place)
        groups = optim.param_groups(
            self.model, head=(), lr=config.lr, ratio=1.0, head_lr=None,
            embedding_lr=config.lr, weight_decay=config.optim.weight_decay,
        )  # fmt: skip
        self.groups = optim.group_table(groups)
        self.trained = checkpoint.Trained(
            weights={name: p for name, p in self.model.named_parameters() if p.requires_grad},
            optimizer=optim.adamw(groups, betas=config.optim.betas, eps=config.optim.eps),
            scaler=torch.amp.GradScaler(place.type, enabled=False),
        )
        blocks = len(self.corpus.train)
        self.order = Order(
            np.ones(blocks, dtype=np.int64), batch_size=config.train.batch_size, seed=config.seed, bucketing=False
        )
        self.steps = config.train.steps or max(1, round((config.train.epochs or 0) * self.order.per_epoch))
        self.set_up_seconds = time.monotonic() - began

    def execute(self) -> dict[str, Any]:
        """Trains, from the checkpoint where there is one, saves the model, and gives the record."""
        state = checkpoint.load(self.directory.checkpoint)
        if state is not None:
            _refuse_other(self.directory, state["identity"], self.identity)
        self.directory.begin(yaml.safe_dump(asdict(self.config), sort_keys=False))
        self.trained.begin(self.config.seed)
        with self._open(state) as progress:
            train(
                self.model,
                self.trained.optimizer,
                steps=self.steps,
                fetch=self._fetch,
                loss_of=_loss,
                factor=optim.schedule("linear", warmup=self.config.optim.warmup, steps=self.steps),
                scaler=self.trained.scaler,
                workers=self.workers,
                clip=self.config.optim.clip,
                log_every=self.config.train.log_every,
                progress=progress,
                evaluation_due=self._evaluation_due,
                evaluate=self._evaluate,
                log=lambda progress, loss: self._log(progress, "train", {"loss": loss}),
                checkpoint=self._between_steps,
            )
            self._save(progress)
            if not progress.diverged:
                self._write_model()
            record = self._record(progress)
            self.journal.summarise(record["metrics"])
        return record

    @contextmanager
    def _open(self, state: dict[str, Any] | None) -> Iterator[Progress]:
        """Files, tracker and console, open; what was done, restored; an interrupt leaves a checkpoint."""
        self.saver = checkpoint.Checkpointer(self.directory.checkpoint, every=self.config.train.checkpoint_seconds)
        if state is not None:
            self.trained.restore(state)
        config = asdict(self.config)
        settings = {**config["tracker"], "kind": self.config.tracker.name, "name": f"pretrain-{self.config.name}"}
        tracker = open_tracker(
            **settings, run_id=f"pretrain-{self.config.name}", config=config, directory=Path(self.config.store)
        )
        size = 0 if state is None else state["metrics_size"]
        count = self.threads if self.place.type == "cpu" else 1
        with open_journal(self.directory, tracker, size=size) as self.journal, Workers(count) as self.workers:
            progress = Progress() if state is None else Progress.from_state(state["progress"])
            self.console.started(self.config.name, self.steps, self.groups, resumed_at=progress.step)
            try:
                yield progress
            except Interrupted:
                self._save(progress)
                self.console.interrupted(progress.step, self.steps)
                raise
            finally:
                self.console.close()

    def _evaluation_due(self, step: int) -> bool:
        return step > 0 and (step % self.config.train.eval_every == 0 or step == self.steps)

    def _fetch(self, step: int) -> tuple[dict[str, Tensor], int]:
        self.journal.step()
        blocks = self.corpus.train[self.order.batch(step)]
        return self._masked(blocks, (self.config.seed, step)), blocks.size

    def _masked(self, blocks: NDArray[np.int32], seed: tuple[int, ...]) -> dict[str, Tensor]:
        batch = masked(
            blocks, share=self.config.corpus.masked, vocabulary=self.vocabulary, specials=len(SPECIALS),
            mask_id=SPECIALS.index("<mask>"), seed=seed,
        )  # fmt: skip
        return {name: value.to(self.place, non_blocking=True) for name, value in batch.items()}

    def _evaluate(self, progress: Progress) -> None:
        """The mean loss of the held-out blocks' chosen tokens, in nats, and the share of them that is told rightly."""

        def of_batch(start: int) -> tuple[float, float, int]:
            self.interrupts.check()
            self.console.alive()
            blocks = self.corpus.heldout[start : start + EVALUATION_BATCH]
            batch = self._masked(blocks, (HELDOUT_MASKS, start))
            with torch.inference_mode():
                logits, labels = forward(self.model, batch), batch["labels"]
                right = (logits.argmax(-1) == labels).float().mean()
                return float(_loss(logits, labels)), float(right), len(blocks)

        starts = range(0, len(self.corpus.heldout), EVALUATION_BATCH)
        losses, rights, sizes = zip(*self.workers.map(of_batch, starts), strict=True)
        loss, accuracy = (float(np.average(values, weights=sizes)) for values in (losses, rights))
        progress.last = {"step": progress.step, "loss": loss, "accuracy": accuracy}
        self._log(progress, "validation", {"loss": loss, "accuracy": accuracy})

    def _log(self, progress: Progress, split: str, values: dict[str, float]) -> None:
        finite = {name: value if np.isfinite(value) else None for name, value in values.items()}
        line = {"step": progress.step, "split": split, "values": finite, "lr_A": None, "lr_B": None}
        line["seconds"] = round(progress.elapsed(), 3)
        self.journal.line(line)
        self.console.line(line)

    def _between_steps(self, progress: Progress) -> None:
        self.interrupts.check()
        if self.saver.due():
            self._save(progress)
        self.console.step(progress.step)

    def _save(self, progress: Progress) -> None:
        state = {"progress": progress.to_state(), "metrics_size": self.journal.sync(), "identity": self.identity}
        self.saver.save({**state, **self.trained.capture()})

    def _write_model(self) -> None:
        """model/: what transformers' from_pretrained loads, the tokenizer with it."""
        shutil.rmtree(self.directory.model, ignore_errors=True)  # of a process that died before its record
        with without_bars(), atomic_directory(self.directory.model) as temporary:
            self.model.model.save_pretrained(temporary)
            self.corpus.tokenizer.save_pretrained(temporary)

    def _record(self, progress: Progress) -> dict[str, Any]:
        count = sum(p.numel() for p in self.trained.weights.values())
        return {
            "status": "diverged" if progress.diverged else "success",
            "error": None,
            "metrics": {"primary": "loss", "validation": {"best": None, "last": progress.last}},
            "unigram_entropy": unigram_entropy(self.corpus.train),
            "steps": progress.step,
            "groups": self.groups,
            "parameters": {"total": count, "trainable": count},
            "blocks": {"train": len(self.corpus.train), "heldout": len(self.corpus.heldout)},
            "timing": {
                **progress.timing(),
                "set_up_seconds": self.set_up_seconds,
                "steps_executed": self.journal.executed,
            },
            "memory": device.memory_peak(self.place),
            "device": device.describe(self.place),
            "threads": self.threads,
        }


def _texts(config: PretrainConfig) -> tuple[list[str], list[str]]:
    """Reviews to train on, and held-out ones; those of imdb's test split are in neither."""
    splits = tasks.read(DATA).splits
    reviews = [text for part in ("train", "validation") for (text,) in splits[part].texts]
    heldout, rest = reviews[-config.corpus.heldout :], reviews[: -config.corpus.heldout]
    most = len(reviews) - 1
    if config.corpus.heldout > most or (config.corpus.reviews or 1) > len(rest):
        raise UserError(
            f"corpus.reviews, corpus.heldout: got {config.corpus.reviews} and {config.corpus.heldout}; "
            f"there are {len(reviews)} reviews for both"
        )
    return rest[: config.corpus.reviews], heldout


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over (rows, k) tokens, in nats."""
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
