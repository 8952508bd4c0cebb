"""The composition root of pretraining: PretrainConfig -> a folder with a masked language model for train.py.

The loop, optimizer, checkpoints and journal are those of a run. The folder is named by the config's `name`, and its
record has the settings: <store>/pretrained/<name>/{config.yaml, metrics.jsonl, model/, record.json}.
"""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loralab import device, tasks
from loralab.config.keys import config_values
from loralab.config.pretrain import PretrainConfig
from loralab.errors import UserError
from loralab.files import atomic_directory
from loralab.methods import full
from loralab.methods.formats.plain import without_bars
from loralab.pretraining.corpus import SPECIALS, Corpus, prepare, unigram_entropy
from loralab.pretraining.masking import masked
from loralab.pretraining.roberta import AtPositions, roberta
from loralab.runs.console import Console
from loralab.runs.plan import NUMERICS_VERSION, make_store
from loralab.runs.record import as_yaml, origin, results
from loralab.store.leftovers import remove_old_temporaries
from loralab.store.provenance import code_version
from loralab.store.record import PretrainingEnding, PretrainingRecord
from loralab.store.run_directory import RunDirectory, final_status
from loralab.store.trackers import Tracker, open_tracker
from loralab.text import finite
from loralab.training import optim
from loralab.training.batches import Order
from loralab.training.checkpoint import Trained, refuse_foreign
from loralab.training.distributed import launched
from loralab.training.evaluate import forward
from loralab.training.gradient import CPU_PARTS, backward
from loralab.training.loop import Batch, complete, exploded, train
from loralab.training.session import Session, open_session, stored_state
from loralab.training.signals import Interrupts
from loralab.training.threads import threads_restored

__all__ = ["pretrain"]

DATA = tasks.TaskSettings("imdb")
HELDOUT_MASKS = 0  # seed of the held-out blocks' masks, equal for every model
EVALUATION_BATCH = 64


def pretrain(config: PretrainConfig, *, wait: bool = False, console: Console | None = None) -> PretrainingRecord:
    """The record of the model that `config` names: the stored one if it is finished; else it is trained, or resumed.

    wait: wait for another process that holds the model, rather than raise UserError. Raises UserError where the folder
    holds a model of other settings; on a signal, Interrupted after a checkpoint is written.
    """
    console = console or Console.for_terminal()
    if launched() > 1:
        raise UserError("pretrain.py trains in one process; start it without torchrun")
    directory = RunDirectory(Path(config.store) / "pretrained" / config.name)
    place = device.pick_device(config.train.device)
    identity = _identity(config, device.pick_precision(config.train.precision, place, width=config.model.width))
    if (done := _done(directory, identity)) is not None:
        directory.tidy()
        console.already_done(done, directory.path)
        return done
    make_store(Path(config.store))
    remove_old_temporaries(Path(config.store))
    with Interrupts() as interrupts, threads_restored(), directory.hold(wait=wait, check=interrupts.check):
        if (done := _done(directory, identity)) is not None:  # by another process
            console.already_done(done, directory.path)
            return done
        started = time.time()
        prepared = _prepare(config, place, identity["train"]["precision"], console)
        end = _train(prepared, directory, identity, console, interrupts)
        head = origin(name=config.name, config=config_values(config), identity=identity, started=started)
        record: PretrainingRecord = {**head, **end, "ended": time.time()}
        directory.finish(record)
    console.finished(record, directory.path)
    return record


def _done(directory: RunDirectory, identity: dict[str, Any]) -> PretrainingRecord | None:
    """The record of a finished model; raises UserError where it is of other settings."""
    done = cast(PretrainingRecord | None, directory.finished())
    if done is not None:
        _refuse_other(directory, done["identity"], identity)
    return done


def _identity(config: PretrainConfig, precision: str) -> dict[str, Any]:
    """Exactly the settings that determine the model."""
    values = config_values(config)
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
    """Raises UserError, with the first setting that differs, unless the folder's model has the wanted identity."""
    some, other = _flat(there), _flat(wanted)
    key = next((key for key in other if some.get(key) != other[key]), None)
    if key is not None:
        raise UserError(
            f"name: {directory.path} holds a model with {key}={some.get(key)}, not {other[key]}; "
            "give the new model another name=NAME, or remove that folder"
        )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


@dataclass(frozen=True)
class _Prepared:
    """A pretraining that is ready to start in this process."""

    config: PretrainConfig
    device: torch.device
    corpus: Corpus
    model: AtPositions
    trained: Trained
    groups: list[dict[str, Any]]
    order: Order
    steps: int
    threads: int
    seconds: float  # of preparation


def _prepare(config: PretrainConfig, place: torch.device, precision: str, console: Console) -> _Prepared:
    """Reads and tokenises the texts, and creates the model with random weights."""
    began = time.monotonic()
    console.loading(config.name, DATA.name)
    threads = device.prepare(place, threads=config.train.threads)
    train_texts, heldout = _texts(config)
    corpus = prepare(
        train_texts, heldout,
        vocabulary=config.corpus.vocabulary, length=config.corpus.length, cache=Path(config.store) / "cache",
    )  # fmt: skip
    model = AtPositions(
        roberta(
            config.model.width, layers=config.model.layers,
            vocabulary=len(corpus.tokenizer), length=config.corpus.length, seed=config.seed,
        )
    )  # fmt: skip
    full.attach(model, head=(), device=place, dtype=device.DTYPES[precision])
    model.to(place)
    groups = optim.param_groups(
        model, head=(), lr=config.lr, ratio=1.0, head_lr=None,
        embedding_lr=config.lr, weight_decay=config.optim.weight_decay,
    )  # fmt: skip
    trained = Trained(
        weights={name: p for name, p in model.named_parameters() if p.requires_grad},
        optimizer=optim.adamw(groups, betas=config.optim.betas, eps=config.optim.eps),
        scaler=torch.amp.GradScaler(place.type, enabled=False),
    )
    lengths = np.ones(len(corpus.train), dtype=np.int64)
    order = Order(lengths, batch_size=config.train.batch_size, seed=config.seed, bucketing=False)
    steps = config.train.steps or max(1, round((config.train.epochs or 0) * order.per_epoch))
    seconds = time.monotonic() - began
    return _Prepared(config, place, corpus, model, trained, optim.group_table(groups), order, steps, threads, seconds)


def _train(
    prepared: _Prepared,
    directory: RunDirectory,
    identity: dict[str, Any],
    console: Console,
    interrupts: Interrupts,
) -> PretrainingEnding:
    """Trains to the last step, from the checkpoint if there is one, then saves the model; returns the results."""
    config, trained = prepared.config, prepared.trained
    state = stored_state(directory, trained.ranks)
    if state is not None:
        there = state.get("identity")
        refuse_foreign(directory.checkpoint, None if isinstance(there, dict) else "it has no identity")
        _refuse_other(directory, cast(dict[str, Any], there), identity)
    directory.begin(as_yaml(config))
    with open_session(
        trained,
        directory,
        state,
        name=config.name,
        steps=prepared.steps,
        groups=prepared.groups,
        seed=config.seed,
        tracker=_tracker(prepared, directory),
        workers=prepared.threads if prepared.device.type == "cpu" else 1,
        checkpoint_seconds=config.train.checkpoint_seconds,
        screen=console,
        interrupts=interrupts,
        kept={"identity": identity},
    ) as session:
        if session.journal.mirrored is not None:
            console.mirrored(session.journal.mirrored)

        def fetch(step: int) -> Batch:
            session.journal.step()
            blocks = prepared.corpus.train[prepared.order.batch(step)]
            return Batch(blocks.size, lambda: _gradient(prepared, session, blocks, step))

        def evaluation_due(step: int) -> bool:
            return step > 0 and (step % config.train.eval_every == 0 or step == prepared.steps)

        training = train(
            prepared.model,
            trained.optimizer,
            steps=prepared.steps,
            fetch=fetch,
            factor=optim.schedule("linear", warmup=config.optim.warmup, steps=prepared.steps),
            scaler=trained.scaler,
            clip=config.optim.clip,
            log_every=config.train.log_every,
            progress=session.progress,
            evaluation_due=evaluation_due,
            evaluate=lambda _: _evaluate(prepared, session),
            log=lambda _, loss: session.log("train", {"loss": loss}),
            checkpoint=lambda _: session.between_steps(),
        )
        complete(training)
        session.save()
        if not session.progress.diverged:
            directory.check()
            _write_model(prepared, directory)
        end = _ending(prepared, session)
        session.journal.summarise(end["status"], end["metrics"])
    return end


def _gradient(prepared: _Prepared, session: Session, blocks: NDArray[np.int32], step: int) -> Tensor:
    batch = _masked(prepared, blocks, (prepared.config.seed, step))
    return backward(
        prepared.model, batch, loss_of=_loss, scaler=prepared.trained.scaler, workers=session.workers,
        parameters=[*prepared.trained.weights.values()], parts=CPU_PARTS if prepared.device.type == "cpu" else 1,
    )  # fmt: skip


def _tracker(prepared: _Prepared, directory: RunDirectory) -> Tracker:
    """The pretraining's tracker; a resumed one continues its page."""
    config = prepared.config
    name, store = f"pretrain-{config.name}", Path(config.store)
    facts = {"code": code_version(store), "parameters": _parameters(prepared)}
    return open_tracker(
        kind=config.tracker.name,
        mode=config.tracker.mode,
        name=name,
        run_id=name,
        config={**config_values(config), **facts},
        directory=directory.path,
        store=store,
        project=config.tracker.project,
        entity=config.tracker.entity,
        group=config.tracker.group,
        tags=config.tracker.tags,
    )


def _masked(prepared: _Prepared, blocks: NDArray[np.int32], seed: tuple[int, ...]) -> dict[str, Tensor]:
    batch = masked(
        blocks, share=prepared.config.corpus.masked, vocabulary=len(prepared.corpus.tokenizer),
        specials=len(SPECIALS), mask_id=SPECIALS.index("<mask>"), seed=seed,
    )  # fmt: skip
    return {name: value.to(prepared.device, non_blocking=True) for name, value in batch.items()}


def _evaluate(prepared: _Prepared, session: Session) -> None:
    """Logs the mean loss (nats) and the accuracy on the masked tokens of the held-out blocks."""
    heldout = prepared.corpus.heldout

    def of_batch(start: int) -> tuple[float, float, int]:
        session.between_batches()
        blocks = heldout[start : start + EVALUATION_BATCH]
        batch = _masked(prepared, blocks, (HELDOUT_MASKS, start))
        with torch.inference_mode():
            logits, labels = forward(prepared.model, batch), batch["labels"]
            right = (logits.argmax(-1) == labels).float().mean()
            return float(_loss(logits, labels)), float(right), len(blocks)

    starts = range(0, len(heldout), EVALUATION_BATCH)
    losses, rights, sizes = zip(*session.workers.map(of_batch, starts), strict=True)
    loss, accuracy = (float(np.average(values, weights=sizes)) for values in (losses, rights))
    progress = session.progress
    progress.last = {"step": progress.step, "loss": finite(loss), "accuracy": accuracy}
    if progress.step == prepared.steps:  # no training loss would show that the last update broke the model
        progress.diverged = exploded(loss, progress.first_loss) or not prepared.trained.is_finite()
    session.log("validation", {"loss": loss, "accuracy": accuracy})


def _write_model(prepared: _Prepared, directory: RunDirectory) -> None:
    """Writes model/, weights and tokenizer, for transformers' from_pretrained."""
    shutil.rmtree(directory.model, ignore_errors=True)  # left by a process that died before writing its record
    with without_bars(), atomic_directory(directory.model) as temporary:
        prepared.model.model.save_pretrained(temporary)
        prepared.corpus.tokenizer.save_pretrained(temporary)


def _ending(prepared: _Prepared, session: Session) -> PretrainingEnding:
    found = results(
        session,
        metrics={"primary": "loss", "validation": {"best": None, "last": session.progress.last}},
        groups=prepared.groups,
        parameters=_parameters(prepared),
        set_up_seconds=prepared.seconds,
        place=prepared.device,
        threads=prepared.threads,
    )
    blocks = {"train": len(prepared.corpus.train), "heldout": len(prepared.corpus.heldout)}
    return {
        "status": final_status(diverged=session.progress.diverged),
        **found,
        "unigram_entropy": unigram_entropy(prepared.corpus.train),
        "blocks": blocks,
    }


def _parameters(prepared: _Prepared) -> dict[str, int]:
    count = sum(p.numel() for p in prepared.trained.weights.values())
    return {"total": count, "trainable": count}


def _texts(config: PretrainConfig) -> tuple[list[str], list[str]]:
    """The training reviews and the held-out ones; neither includes imdb's test split."""
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
