"""hydra/sweeper=tune: a tuning session, whose trials any launcher trains. The session is in loralab.tuning."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from loralab.tuning.progress import TuneProgress

__all__ = ["TuneSweeper"]


@dataclass
class TuneConf:
    """hydra.sweeper; `loralab tune` sets it from its options: src/loralab/tuning/options.py"""

    _target_: str = "hydra_plugins.loralab.tune_sweeper.TuneSweeper"
    search: str = "law"  # law | optuna
    space: list[str] = field(default_factory=list)  # of optuna: KEY=SPEC
    sampler: str = "tpe"  # of optuna: tpe | gp | random
    pruner: str = "halving"  # of optuna: halving | hyperband | none
    budget: float | None = None  # full runs; null: 5, or as many as `trials` cost
    trials: int | None = None  # of optuna, at most
    seeds: int = 2  # of the last candidates
    ratio: bool = False  # check λ where s λ is 1 and 16
    confirm: int = 0  # fresh seeds for the gain over the default
    name: str | None = None  # of the session's folder in the store's tune/
    figure: str | None = None  # null: beside tune.yaml
    at_once: int | None = None  # trials; null: as many as the pool trains, one with another launcher


ConfigStore.instance().store(group="hydra/sweeper", name="tune", node=TuneConf, provider="loralab")


class TuneSweeper(Sweeper):
    """Asks for trials, launches them, and so on until there is a recommendation, which is printed."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `sweep`."""
        self.context, self.config = hydra_context, config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """The recommendation; its file's path is the last line that is printed."""
        from loralab.config.compose import Composer
        from loralab.text import printed
        from loralab.training.distributed import refuse_multirun
        from loralab.tuning.options import Options
        from loralab.tuning.run import tune

        refuse_multirun()
        assert self.config is not None
        options = Options(**self.options)
        tuned = tune(
            Composer(self.context.config_loader, self.config),
            arguments,
            options,
            launch=self._launch,
            at_once=options.at_once or self._at_once(),
            attach=self._attach,
        )
        print(printed([*tuned.lines(), str(tuned.file)]), flush=True)
        return tuned

    def _launch(self, jobs: Sequence[tuple[str, ...]], first: int) -> None:
        import sys

        from loralab.compat.hydra import outcome
        from loralab.config.explain import explain
        from loralab.errors import RunsFailed
        from loralab.text import shown

        for job in self.launcher.launch(jobs, first):
            error = outcome(job) if job.status != JobStatus.COMPLETED else None
            if error is not None and not isinstance(error, RunsFailed):  # the pool's are in the session's display
                line = explain(error) or f"{type(error).__name__}: {error}"
                print(f"failed: {shown(line)}", file=sys.stderr)

    def _at_once(self) -> int:
        from hydra_plugins.loralab.pool_launcher import PoolLauncher

        if not isinstance(self.launcher, PoolLauncher):
            return 1
        return len(self.launcher.places()) * self.launcher.packed()

    def _attach(self, progress: "TuneProgress") -> None:
        from hydra_plugins.loralab.pool_launcher import PoolLauncher

        if isinstance(self.launcher, PoolLauncher):
            self.launcher.display, self.launcher.about = progress, progress.about
