"""Rows of runs without a store, and stores of runs without a training, for tests of what ranks and draws them."""

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from loralab.config.keys import config_values
from loralab.runs.plan import plan
from loralab.runs.rows import Row
from loralab.store.run_directory import RunDirectory, Standing
from loralab.sweeps.sweep_file import SweepFile, sweep_id
from tests.small_runs import config
from tests.store.records import record


def row(score: float | None, *, metric: str = "accuracy", status: str = "success", **settings: Any) -> Row:
    """A run with this score on validation; settings: `lora__ratio=4`, and a task unless one is named."""
    named = {"task": "trec", **{key.replace("__", "."): value for key, value in settings.items()}}
    scores = {f"validation/{metric}": score} if status in ("success", "paused") else {}
    directory = RunDirectory(Path("runs") / "-".join(map(str, named.values())))
    return Row(directory, Standing(status), 0.0, {"metric": metric}, named, scores)


def grid(score: Callable[..., float], seeds: int = 1, **axes: Sequence[Any]) -> list[Row]:
    """A run for each combination of the axes and each seed; score: of a combination, to which a seed adds 0.01."""
    found = []
    for values in product(*axes.values()):
        own = dict(zip(axes, values, strict=True))
        found += [row(score(**own) + 0.01 * seed, seed=seed, **own) for seed in range(seeds)]
    return found


def stored(store: Path, score: Callable[[str, int], float | None], axes: Sequence[str], seeds: int = 2) -> SweepFile:
    """A store with a finished run for each of the overrides `axes` and each seed, and the sweep's file.

    score: of an override and a seed; None for a run that has not begun.
    """
    names = []
    for axis, seed in product(axes, range(seeds)):
        planned = plan(config(store, *axis.split(), f"seed={seed}"))
        names.append(planned.directory.path.name)
        if (value := score(axis, seed)) is not None:
            split = {"step": 12, "accuracy": value, "loss": 1 - value}
            metrics = {"primary": "accuracy", "validation": {"best": split, "last": split}}
            planned.directory.begin(OmegaConf.to_yaml(OmegaConf.structured(planned.config)))
            planned.directory.finish(record("success", config=config_values(planned.config), metrics=metrics))
    keys = dict.fromkeys(text.partition("=")[0] for axis in axes for text in axis.split())
    sweep = SweepFile(sweep_id("sweep", names), None, (*keys, "seed"), None, tuple(names))
    sweep.write(store)
    return sweep
