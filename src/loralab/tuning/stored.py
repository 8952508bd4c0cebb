"""Runs of the store that a session may use: they differ from its trials only in what the search varies.

They are read once, when the session first begins, and kept in its folder. A session that goes on later, or two at once,
use the same ones.
"""

import contextlib
import copy
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from loralab.errors import UserError
from loralab.files import read_regular
from loralab.runs.plan import Plan
from loralab.store.record_file import read_record
from loralab.store.run_directory import RunDirectory
from loralab.store.strict_json import parse
from loralab.tuning.seen import Look, look
from loralab.tuning.trial import Observed, Settings, settings_of

__all__ = ["fitting", "kept"]

# Settings of `train` that change where losses are logged, and no loss.
LOGGING = ("eval_every", "eval_first", "log_every")
PlanOf = Callable[[Settings, Mapping[str, Any]], Plan]
"""(settings of a trial, further settings by key) -> its run."""


def fitting(store: Path, base: Plan, keys: Sequence[str], *, steps: int, plan_of: PlanOf) -> list[Look]:
    """For each value of `keys` and the seed, the longest run that is final or paused and otherwise like `base`.

    keys: what the search varies; a run is found only if its identity has all of them (a group such as `model` is not
    in it). steps: of each run.
    """
    found: dict[Settings, Look] = {}
    wanted = _without(base.identity, keys)
    task = base.config.task
    slug = f"*-{task.name if task.called == task.name else '*'}-{base.config.method.name}-*"
    for path in sorted((store / "runs").glob(f"{slug}/record.json")) if wanted is not None else ():
        with contextlib.suppress(UserError, KeyError, TypeError):  # damaged, or of another version
            record = read_record(path)
            if record is None or record["status"] == "failed" or _without(record["identity"], keys) != wanted:
                continue
            run, identity = RunDirectory(path.parent), record["identity"]
            settings = settings_of({**{key: _at(identity, key) for key in keys}, "seed": identity["data_seed"]})
            logging = {f"train.{name}": identity["train"][name] for name in LOGGING}
            if plan_of(settings, logging).directory.hash != run.hash:
                continue
            one = look(run, settings, steps=steps)
            if one is not None and (settings not in found or one.share > found[settings].share):
                found[settings] = one
    return list(found.values())


def kept(file: Path, find: Callable[[], Iterable[Look]]) -> dict[Settings, Look]:
    """What `find` gave when the session first began, from `file`, which is written now if it is not there."""
    if not file.exists():
        _write_new(file, json.dumps([_to_json(each) for each in find()], allow_nan=False, indent=1))
    try:
        looks = [_from_json(each) for each in parse(read_regular(file))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file} is damaged ({error}); remove it, and the same command reads the store again"
        ) from error
    return {each.observed.settings: each for each in looks}


def _write_new(file: Path, text: str) -> None:
    """Writes the file in one piece unless it is there: of two processes one writes it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".tmp")
    try:
        os.write(handle, text.encode())
        os.fsync(handle)
        with contextlib.suppress(FileExistsError):
            os.link(name, file)
    finally:
        os.close(handle)
        Path(name).unlink(missing_ok=True)


def _without(identity: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any] | None:
    """The identity without `keys`, the seeds and LOGGING; None where it lacks a key.

    A rate of the head that is that of the adapters follows it.
    """
    bare = copy.deepcopy(dict(identity))
    if bare["optim"]["head_lr"] == bare["optim"]["lr"]:
        bare["optim"]["head_lr"] = "optim.lr"
    try:
        for key in (*keys, "init_seed", "data_seed", *(f"train.{name}" for name in LOGGING)):
            *nodes, name = key.split(".")
            node = bare
            for each in nodes:
                node = node[each]
            del node[name]
    except (KeyError, TypeError):
        return None
    return bare


def _at(identity: Mapping[str, Any], key: str) -> Any:
    value: Any = identity
    for name in key.split("."):
        value = value[name]
    return tuple(value) if isinstance(value, list) else value


def _to_json(one: Look) -> dict[str, Any]:
    curve = [[share, loss if math.isfinite(loss) else None] for share, loss in one.observed.curve]
    settings = {key: list(value) if isinstance(value, tuple) else value for key, value in one.observed.settings}
    return {
        "run": one.run, "settings": settings, "status": one.observed.status, "curve": curve,
        "share": one.share, "seconds": one.seconds,
    }  # fmt: skip


def _from_json(line: dict[str, Any]) -> Look:
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in line["settings"].items()}
    curve = tuple((float(share), math.inf if loss is None else float(loss)) for share, loss in line["curve"])
    return Look(line["run"], Observed(settings_of(values), line["status"], curve), line["share"], line["seconds"])
