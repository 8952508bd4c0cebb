"""A sweep's config -> its cells: the runs that it needs, and where each is stored. Trains nothing.

Hydra's `study` sweeper and the `loralab` command both use it.
"""

import contextlib
import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from loralab import places
from loralab.config.arguments import translated
from loralab.config.compose import CONF, Composer, configs
from loralab.config.explain import explain
from loralab.config.literal import literal
from loralab.config.overrides import name_of, read, settings, to_override
from loralab.config.schema import from_hydra
from loralab.errors import UserError
from loralab.store.run_directory import FINAL
from loralab.sweeps import grid
from loralab.sweeps.cell import Cell
from loralab.sweeps.selection import edges, selected

if TYPE_CHECKING:
    import pandas as pd

    from loralab.runs.plan import Plan

__all__ = ["Study", "Unfinished", "folder", "open_study", "open_sweep", "studies"]

Job = tuple[str, ...]

# The smoke size of a study whose file has none.
SMOKE = {"model": "tiny", "task.train_rows": 64, "task.eval_rows": 64, "train.steps": 4, "train.precision": "fp32"}


@dataclass(frozen=True)
class Study:
    """The runs that a sweep needs: the jobs of its grid and, once these are done, those of its second stage.

    name: of its file in sweeps/, None for a sweep that the command line alone describes; arguments: the command line's
    overrides; words: what was typed, if it was not opened by Hydra. Raises UserError, or what Hydra raises, for jobs
    that do not compose.
    """

    name: str | None
    spec: grid.Spec
    arguments: Sequence[str]
    smoke: bool
    composer: Composer
    plans: dict[Job, "Plan"] = field(default_factory=dict)
    words: Sequence[str] = ()

    @classmethod
    def of(cls, loader: ConfigLoader, master: DictConfig, arguments: Sequence[str]) -> "Study":
        """From the configuration that Hydra composed for the sweep itself, and the sweep's overrides."""
        sweeper: Any = OmegaConf.to_container(master.hydra.sweeper, resolve=True)
        name = master.hydra.runtime.choices.get("sweeps")
        given = {name_of(read(argument)) for argument in arguments} | set(sweeper["params"])
        if name is not None and "tracker.group" not in given and master.tracker.get("group") is None:
            arguments = [*arguments, f"tracker.group={name}"]
        if sweeper["size"] not in ("full", "smoke"):
            raise UserError(f"hydra.sweeper.size: got {sweeper['size']!r}; allowed: full, smoke")
        if name is not None and "program" not in sweeper["study"] and not sweeper["smoke"]:
            sweeper["smoke"] = SMOKE
        spec = grid.Spec.from_mapping(sweeper)
        return cls(name, spec, tuple(arguments), sweeper["size"] == "smoke", Composer(loader, master))

    @cached_property
    def grid(self) -> list[Job]:
        """The jobs of the first stage; UserError for a study that has none."""
        if self.spec.program is not None:
            raise UserError(f"sweeps: {self.name} is measured, not trained; `loralab study {self.name}` does it")
        return grid.jobs(self.spec, self.arguments, smoke=self.smoke)

    @property
    def header(self) -> dict[str, str]:
        """What its file says for people: claim, metric, command and cost.

        Where the file leaves them out, metric is what the second stage is selected by, command is what does all of the
        study, and cost is the number of runs of the grid; without a second stage there is no metric, and no claim.
        """
        found = {"command": f"loralab study {self.name}"}
        if self.spec.program is None:
            found["cost"] = f"{len(self.grid)} runs"
        if self.spec.confirm is not None:
            found["metric"] = self.spec.confirm.select
        return found | self.spec.study

    @cached_property
    def axes(self) -> list[str]:
        """The keys that vary in either stage."""
        fresh = self.spec.confirm.params if self.spec.confirm is not None else ()
        return list(dict.fromkeys([*grid.axes(self.grid), *(name for axis in fresh for name in axis.names)]))

    @cached_property
    def store(self) -> Path:
        """Where its runs are."""
        return Path(self.composer.settings(self.grid[0]).store)

    def cells(self) -> list[Cell]:
        """Every run that is needed: the grid's, and those of the second stage once its first is finished."""
        return [*self.first_cells(), *self.second_cells()]

    def first_cells(self) -> list[Cell]:
        return self._cells(self.grid, "grid")

    def second_cells(self) -> list[Cell]:
        """None where the study has no second stage, or its first is not finished."""
        try:
            return self._cells(self.second_jobs(), "confirm")
        except Unfinished:
            return []

    def second_jobs(self, first: "pd.DataFrame | None" = None) -> list[Job]:
        """The jobs of the second stage; raises Unfinished where they are not known yet.

        first: the table of the first stage; None: as the store has it.
        """
        if self.spec.confirm is None:
            return []
        return grid.confirm_jobs(self.spec, self.arguments, self.chosen(first), smoke=self.smoke)

    def chosen(self, first: "pd.DataFrame | None" = None) -> list[dict[str, Any]]:
        """The configurations that the second stage takes, by axis; raises Unfinished where they are not known yet."""
        table = self._first_table() if first is None else first
        undone = int((~table["status"].isin(FINAL)).sum())
        if undone:
            raise Unfinished(f"{undone} of {len(table)} runs of the first stage are not done")
        try:
            found = selected(table, **self._selection())
        except UserError as error:
            raise Unfinished(str(error)) from error
        return [{name: value for name, value in each.items() if name != "mean"} for each in found]

    def warnings(self) -> list[str]:
        """A line for each chosen value at the end of its axis."""
        return [edge.line for edge in edges(self._first_table(), **self._selection())]

    def _selection(self) -> dict[str, Any]:
        assert self.spec.confirm is not None
        over = [name for axis in self.spec.confirm.params for name in axis.names]
        varying = grid.axes(self.grid)
        by = [name for name in self.spec.confirm.by if name in varying]
        return {"by": by, "metric": self.spec.confirm.select, "over": [name for name in over if name in varying]}

    def _first_table(self) -> "pd.DataFrame":
        from loralab.sweeps.collect import table

        return table(self.store, self.first_cells())

    def _cells(self, jobs: Sequence[Job], stage: str) -> list[Cell]:
        varying = grid.axes([*self.grid, *jobs])
        found = []
        for job in jobs:
            values = settings(job)
            axes = {name: values[name] for name in varying if name in values}
            found.append(Cell(job, axes, stage, self.planned(job).directory.path.name))
        return found

    def planned(self, job: Job) -> "Plan":
        """The run of a job."""
        from loralab.runs.plan import plan  # imports torch, which a figure can do without

        if job not in self.plans:
            try:
                self.plans[job] = plan(from_hydra(self.composer.settings(job)))
            except UserError as error:
                raise UserError(f"{error} (in the job {' '.join(job).replace('+sweeps=', 'sweeps=')})") from error
        return self.plans[job]


class Unfinished(Exception):  # noqa: N818  # a state of a study
    """The second stage is not known: runs of the first are missing, or all runs of an arm diverged."""


def folder() -> Path:
    """Where a new study's file is written."""
    return places.HERE / "sweeps"


def studies() -> list[str]:
    """The names that open_study takes."""
    both = (folder(), places.OURS / "sweeps")
    return sorted({str(path.relative_to(each).with_suffix("")) for each in both for path in each.rglob("*.yaml")})


@contextlib.contextmanager
def open_study(name: str, overrides: Sequence[str] = (), *, store: Path | None = None) -> Iterator[Study]:
    """The study sweeps/<name>.yaml, as `loralab train sweeps=<name> OVERRIDES` would train it.

    store: unless an override names one. Raises UserError for a mistake in the overrides, also one that shows only in
    here as the jobs are composed.
    """
    if name not in studies():
        near = difflib.get_close_matches(name, studies(), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"no study is called {name!r}; {hint}sweeps/ has {', '.join(studies()) or 'none'}")
    given = [] if store is None else [f"store={to_override(literal(str(store)))}"]
    with open_sweep([f"+sweeps={name}", *given, *overrides]) as study:
        yield study


@contextlib.contextmanager
def open_sweep(words: Sequence[str]) -> Iterator[Study]:
    """The sweep that `loralab train --multirun WORDS` would train; a study has `sweeps=NAME` among them.

    Raises UserError for a mistake in them, also one that shows only in here as the jobs are composed.
    """
    flags, settings = translated(words)
    arguments = [*(flag for flag in flags if not flag.startswith("-")), *settings]  # such as ~key, which has no =
    try:
        with configs(CONF):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            master = hydra.compose_config("config", arguments, run_mode=RunMode.MULTIRUN, with_log_configuration=False)
            task: Any = OmegaConf.to_container(master.hydra.overrides.task)
            yield replace(Study.of(hydra.config_loader, master, task), words=tuple(words))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from error
