"""hydra/sweeper=study: the grids of sweeps/ and of the command line, in one or two stages; ends with their answer."""

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from loralab.sweeps.study import Study
    from loralab.sweeps.sweep_file import SweepFile

__all__ = ["StudySweeper"]


@dataclass
class StudyConf:
    """hydra.sweeper; what each key means: src/loralab/sweeps/spec.py and grid.py"""

    _target_: str = "hydra_plugins.loralab.study_sweeper.StudySweeper"
    study: dict[str, str] = field(default_factory=dict)  # claim, metric, command, cost: for people
    params: dict[str, Any] = field(default_factory=dict)  # axes of every run
    arms: list[Any] = field(default_factory=list)  # axes whose values depend on one another's
    confirm: Any = None  # fresh seeds for the selected configurations
    smoke: dict[str, Any] = field(default_factory=dict)  # values for the small size (smoke=true)
    size: str = "full"  # full | smoke (smoke=true)
    dry_run: bool = False  # print the runs, train none (--dry-run)
    inside: bool = False  # of `loralab study`, which draws and judges once all is trained


ConfigStore.instance().store(group="hydra/sweeper", name="study", node=StudyConf, provider="loralab")


class StudySweeper(Sweeper):
    """Launches the grid, then the second stage where the study has one."""

    def __init__(self, dry_run: bool, inside: bool, **_: Any) -> None:
        self.dry_run, self.inside = dry_run, inside

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `sweep`."""
        self.context, self.config = hydra_context, config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """The returns of every stage's jobs. Raises RunsFailed where a run failed, after all others are done."""
        from loralab.cli.sweep_answer import conclude
        from loralab.errors import RunsFailed
        from loralab.sweeps.status import forecast
        from loralab.sweeps.study import Study
        from loralab.text import printed
        from loralab.training.distributed import refuse_multirun

        refuse_multirun()
        assert self.config is not None
        study = Study.of(self.context.config_loader, self.config, arguments)
        if self.dry_run:
            print(printed(forecast(study)))
            return []
        sweep, returns, failure = self._noted(study), [], None
        try:
            returns = [self._launched(study.grid, 0)]
            if study.spec.confirm is not None:
                returns += self._second_stage(study, sweep)
        except RunsFailed as error:
            failure = error
        if sweep is not None:
            conclude(sweep, study.store, None if self.inside else study)
        if failure is not None:
            raise failure
        return returns

    def _second_stage(self, study: "Study", sweep: "SweepFile | None") -> list[Sequence[JobReturn]]:
        from loralab.errors import RunsFailed
        from loralab.sweeps.study import Unfinished
        from loralab.text import shown

        assert study.spec.confirm is not None
        try:
            second = study.second_jobs()
        except Unfinished as why:
            if study.planned(study.grid[0]).config.train.pause_at is not None:
                print(f"the second stage waits: {why}")
                return []
            raise RunsFailed(f"there is no second stage: {why}") from why
        for line in study.warnings():
            print(f"warning: {shown(line)}", file=sys.stderr)
        print(f"second stage: {len(study.chosen())} selected by {study.spec.confirm.select}, on fresh seeds")
        if sweep is not None:
            with contextlib.suppress(OSError):
                sweep.with_fresh([cell.run for cell in study.second_cells()]).write(study.store)
        return [self._launched(second, len(study.grid))]

    def _noted(self, study: "Study") -> "SweepFile | None":
        """Writes down which runs the sweep has; None where a job has a mistake, which the launcher reports.

        The pool takes the plans, of 8 ms each. A store that cannot be written to has no such file.
        """
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException

        from hydra_plugins.loralab.pool_launcher import PoolLauncher
        from loralab.errors import UserError
        from loralab.runs.plan import make_store
        from loralab.sweeps.sweep_file import SweepFile

        try:
            with contextlib.suppress(UserError):
                make_store(study.store)  # it has a cache of what plans ask
            sweep = SweepFile.of(study)
        except (UserError, HydraException, OmegaConfBaseException):
            return None
        with contextlib.suppress(OSError):
            sweep.write(study.store)
        if isinstance(self.launcher, PoolLauncher):
            self.launcher.known = study.plans
        return sweep

    def _launched(self, jobs: Sequence[tuple[str, ...]], first: int) -> Sequence[JobReturn]:
        from loralab.compat.hydra import outcome
        from loralab.config.explain import explain
        from loralab.errors import RunsFailed
        from loralab.text import shown

        returns = self.launcher.launch(jobs, first)
        failed = [job for job in returns if job.status != JobStatus.COMPLETED]
        for job in failed:
            error = outcome(job)
            if not isinstance(error, RunsFailed):  # another launcher's; the pool has shown a table
                line = explain(error) or f"{type(error).__name__}: {error}"
                overrides = " ".join(job.overrides or ()).replace("+sweeps=", "sweeps=")  # as a person writes it
                print(f"failed: {shown(f'{overrides}: {line}')}", file=sys.stderr)
        if failed:
            raise RunsFailed
        return returns
