"""hydra/sweeper=study: the grids of sweeps/ and of the command line, in one or two stages."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

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


ConfigStore.instance().store(group="hydra/sweeper", name="study", node=StudyConf, provider="loralab")


class StudySweeper(Sweeper):
    """Launches the grid, then the second stage where the study has one."""

    def __init__(self, dry_run: bool, **_: Any) -> None:
        self.dry_run = dry_run

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `sweep`."""
        self.context, self.config = hydra_context, config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """The returns of every stage's jobs. Raises RunsFailed where a run failed, after all others are done."""
        from loralab.errors import RunsFailed
        from loralab.sweeps.status import forecast
        from loralab.sweeps.study import Study, Unfinished
        from loralab.text import printed, shown
        from loralab.training.distributed import refuse_multirun

        refuse_multirun()
        assert self.config is not None
        study = Study.of(self.context.config_loader, self.config, arguments)
        if self.dry_run:
            print(printed(forecast(study)))
            return []
        returns = [self._launched(study.grid, 0)]
        if study.spec.confirm is not None:
            try:
                second = study.second_jobs()
            except Unfinished as why:
                if study.planned(study.grid[0]).config.train.pause_at is not None:
                    print(f"the second stage waits: {why}")
                    return returns
                raise RunsFailed(f"there is no second stage: {why}") from why
            for line in study.warnings():
                print(f"warning: {shown(line)}", file=sys.stderr)
            print(f"second stage: {len(study.chosen())} selected by {study.spec.confirm.select}, on fresh seeds")
            returns.append(self._launched(second, len(study.grid)))
        return returns

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
