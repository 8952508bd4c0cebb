"""Config -> Plan: resolves every `auto`, and the run's identity and directory; loads no weights.

Texts are read only to count them, where `optim.lr: auto` needs the number of steps and nothing else tells it.
"""

import contextlib
import copy
import json
import math
import os
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from loralab import device, tasks
from loralab.backbones.families import family_of
from loralab.backbones.named_roles import as_roles
from loralab.backbones.source import Source, locate
from loralab.config.checks import cut, drop_added
from loralab.config.keys import config_values
from loralab.config.schema import METHODS, Config, TaskConfig, fit_into_fp32
from loralab.config.shares import pause_step
from loralab.config.stored import stored_config
from loralab.errors import UserError
from loralab.runs.rates import has_factors, resolved_rates, steps_of
from loralab.store import run_directory
from loralab.store.labels import Labels, label
from loralab.store.record import PausedRecord, Record

__all__ = ["NUMERICS_VERSION", "Plan", "drops_out", "make_store", "plan", "read_again", "replan", "task_settings"]

# Part of every run's hash; increased when a change alters the losses of a fixed seed.
NUMERICS_VERSION = 2


@dataclass(frozen=True)
class Plan:
    """A config with every `auto` resolved, its identity, and its run's directory."""

    config: Config
    source: Source
    device: torch.device
    identity: dict[str, Any]
    directory: run_directory.RunDirectory
    labels: Labels
    again: bool
    """Whether a run that has ended is removed and trained once more."""

    @property
    def cache(self) -> Path:
        return Path(self.config.store) / "cache"

    def reached(self) -> Record | PausedRecord | None:
        """The stored record if its run has come as far as the config asks, else None.

        It is final, or paused at `train.pause_at` or later. Raises UserError for a damaged one.
        """
        record = self.directory.record()
        if record is None or record["status"] == "failed":
            return None
        if record["status"] == "paused":
            return record if record["steps"] >= pause_step(self.config.train.pause_at, record["total_steps"]) else None
        return record

    def label(self) -> None:
        """Gives the run, which has a directory, the config's name and tags."""
        if self.labels != Labels():
            label(self.directory.path, self.labels)

    @property
    def steps(self) -> int:
        """The number of steps; reads the training examples where nothing else says how many there are."""
        return _steps(self.config, self.identity["task"]["data"])

    @property
    def warning(self) -> str | None:
        """A warning about the precision on this device, if there is one."""
        return device.imitated(self.config.train.precision, self.device)


def plan(config: Config, *, data: dict[str, str] | None = None) -> Plan:
    """Resolves `config` without loading weights; raises UserError where these or the texts do not exist.

    Module names as targets become the roles that select the same maps, so that two spellings are one run; a stored run
    keeps the spelling that it has. data: the identity of the task's data, which then need not be there.
    """
    store = Path(config.store)
    cache = store / "cache"
    source = locate(
        config.model.name,
        package=config.model.package,
        hub=config.model.hub,
        revision=config.model.revision,
        path=config.model.path,
        cache=cache,
    ).widened(config.model.widen, config.model.widen_noise)
    if data is None:
        # planning alone (as in a dry run) creates no store
        data = tasks.identity(task_settings(config.task), cache=cache if store.is_dir() else None)
    roles = as_roles(config.lora.targets, source.family)
    if has_factors(config) and roles != config.lora.targets:
        asked = copy.deepcopy(config)
        asked.lora.targets = roles
        by_name = _planned(config, source, data)
        return by_name if by_name.directory.path.exists() else _planned(asked, source, data)
    return _planned(config, source, data)


def _planned(config: Config, source: Source, data: dict[str, str]) -> Plan:
    store = Path(config.store)
    place = device.pick_device(config.train.device)
    resolved = copy.deepcopy(config)
    resolved.name, resolved.tags, resolved.train.again = None, [], False  # of this command, not of the run
    resolved.train.precision = device.pick_precision(config.train.precision, place, width=source.width)
    if resolved.model.attention == "auto":
        # On a CPU eager attention is faster: SDPA's backward was 46% of MiniLM's step.
        resolved.model.attention = "eager" if place.type == "cpu" or not family_of(source.family).sdpa else "sdpa"
    if config.train.steps is not None:
        resolved.train.epochs = None
    steps = _steps(config, data) if config.optim.lr == "auto" and has_factors(config) else None
    resolved.optim.lr, resolved.optim.head_lr = resolved_rates(config, width=source.width, steps=steps)
    fit_into_fp32(resolved)
    identity = _identity(resolved, source.identity, data)
    directory = run_directory.directory_of(store, _slug(resolved), run_directory.run_hash(identity))
    labels = Labels(config.name, tuple(config.tags))
    return Plan(resolved, source, place, identity, directory, labels, config.train.again)


def _steps(config: Config, data: dict[str, str]) -> int:
    if config.train.steps is not None:
        return config.train.steps
    rows = tasks.train_rows(task_settings(config.task), json.dumps(data))
    return steps_of(config.train.epochs, None, per_epoch=math.ceil(rows / config.train.batch_size))


def drops_out(config: Config) -> bool:
    """Whether training draws dropout masks, from the process's one generator."""
    return config.model.dropout > 0 or config.lora.dropout > 0


def task_settings(task: TaskConfig) -> tasks.TaskSettings:
    """The config's task node as TaskSettings."""
    return tasks.TaskSettings(
        name=task.name,
        files=tasks.TaskFiles(train=task.files.train, validation=task.files.validation, test=task.files.test),
        text=tuple(task.text),
        label=task.label,
        kind=cast(tasks.Kind | None, task.kind),
        revision=task.revision,
        validation_share=task.validation_share,
        test_share=task.test_share,
        split_seed=task.split_seed,
        train_rows=task.train_rows,
        eval_rows=task.eval_rows,
    )


def make_store(store: Path) -> None:
    """Creates the folder if needed; raises UserError where it is not writable."""
    try:
        store.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=store):
            pass
    except OSError as error:
        raise UserError(
            f"store: {store} cannot be written to ({error.strerror}); name a folder that can be written to"
        ) from error


def _identity(config: Config, weights: str, data: dict[str, str]) -> dict[str, Any]:
    """Exactly the settings that determine a record's content; not the device, the store or the tracker."""
    values = config_values(config)
    drop_added(values, config)
    for name in ("tracker", "store", "seed"):  # init_seed and data_seed, which `seed` sets, remain
        del values[name]
    values["task"].pop("title", None)
    for name in ("device", "threads", "checkpoint_seconds"):
        del values["train"][name]
    # what changes the order of sums alone; with dropout, a part of a batch draws masks of its own
    for name in ("pause_at", "fsdp", *([] if drops_out(config) else ["micro_batch_size"])):
        values["train"].pop(name, None)  # drop_added has removed a null and a false
    del values["task"]["files"], values["task"]["revision"]
    if config.probe.every is None:
        del values["probe"]
    used = METHODS[config.method.name]
    for node in {node for nodes in METHODS.values() for node in nodes if node not in used}:
        del values[node]
    if config.task.name not in tasks.GENERATION:
        del values["generate"]
    if "lora" not in used:
        del values["optim"]["groups"], values["optim"]["embedding_lr"]
    else:
        values["lora"]["targets"] = sorted(set(values["lora"]["targets"]))
        # the last matching pattern wins: a list keeps their order, which JSON's sorted keys would lose
        values["lora"]["rank_pattern"] = list(values["lora"]["rank_pattern"].items())
    values["task"]["data"] = data
    changed = {key: values["model"][key] for key in ("widen", "widen_noise", "quantize") if key in values["model"]}
    values["model"] = {
        "weights": weights, "dropout": config.model.dropout, "attention": config.model.attention, **changed,
    }  # fmt: skip
    return {"numerics": NUMERICS_VERSION, **values}


def replan(run: run_directory.RunDirectory, record: Record) -> Plan:
    """A finished run's plan on this machine's CPU, in fp32, with exactly the weights of its training.

    The data is not asked for: the plan has its recorded identity. Raises UserError where the backbone has changed or is
    no longer there, and where config.yaml is not this version's.
    """
    config = stored_config(run.path / "config.yaml")
    if run.path.parent.name == "runs":  # an export keeps the store of its config
        config.store = str(run.path.parent.parent)
    config.train.device, config.train.precision = "cpu", "fp32"
    weights, data = _recorded(run, record)
    config.task = _at_its_commit(config.task, data)
    if config.model.path is not None:
        config.model.path = _where(run, record, config.model.path)
    elif config.model.hub is not None and config.model.package is None:
        config.model.revision = weights  # a hub model's identity is its commit
    planned = plan(config, data=data)
    if planned.source.identity != weights:
        raise UserError(
            f"{planned.source.key}: {planned.source.origin} has changed since the run was trained "
            f"(then {weights}, now {planned.source.identity}); restore the old weights to use the run"
        )
    return planned


def read_again(run: run_directory.RunDirectory, record: Record) -> tasks.RawTask[Any]:
    """A finished run's texts and labels, with its primary metric first; raises UserError where they have changed."""
    task = stored_config(run.path / "config.yaml").task
    _, data = _recorded(run, record)
    settings = task_settings(_at_its_commit(task, data))
    if tasks.identity(settings, cache=None) != data:
        raise UserError(
            f"{run.path.name}: the data of task={task.name} has changed since the run was trained; put the old files "
            "back, or evaluate a FILE"
        )
    return tasks.choose(tasks.read_once(settings, json.dumps(data)), task.metric)


def _at_its_commit(task: TaskConfig, data: dict[str, str]) -> TaskConfig:
    """The task with the commit of a hub data set that a run was trained on, as for a hub model."""
    return task if task.revision is None else replace(task, revision=data.get("data", task.revision))


def _recorded(run: run_directory.RunDirectory, record: Record) -> tuple[str, dict[str, str]]:
    """The identity of the weights and of the data in the record, whose type says nothing about them."""
    try:
        weights, data = record["identity"]["model"]["weights"], record["identity"]["task"]["data"]
    except (KeyError, TypeError):
        weights, data = None, None
    if not isinstance(weights, str) or not isinstance(data, dict) or not all(map(_is_text, (*data, *data.values()))):
        raise UserError(
            f"{run.path.name}: record.json lacks identity.model.weights or identity.task.data, so another version of "
            "loralab or another program has written it"
        )
    return weights, data


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _where(run: run_directory.RunDirectory, record: Record, path: str) -> str:
    """The backbone's folder: where it was in training, or `path` from here if that is gone."""
    origin = record["backbone"]["origin"] if "backbone" in record else _named_by_adapter(run) or path
    gone = not Path(origin).exists() and Path(os.path.expanduser(path)).exists()  # noqa: PTH111  # as in locate
    return path if gone else origin


def _named_by_adapter(run: run_directory.RunDirectory) -> str | None:
    """The backbone that the adapter's description names: the records of older runs have none."""
    for name, key in (("adapter_config.json", "base_model_name_or_path"), ("adapter.json", "base_model")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            base = json.loads((run.adapter / name).read_text())[key]
            if isinstance(base, str) and Path(base).is_absolute():
                return base
    return None


def _slug(config: Config) -> str:
    shape = f"-r{config.lora.rank}-x{config.lora.ratio:g}" if "lora" in METHODS[config.method.name] else ""
    name = re.sub(r"[^\w.-]", "_", config.model.name)
    wide = f"-w{config.model.widen}" if config.model.widen > 1 else ""
    task = cut(re.sub(r"[^\w.-]", "_", config.task.called))
    return f"{name}{wide}-{task}-{config.method.name}{shape}-s{config.seed}"
