"""hydra/launcher=pool: a bounded pool of warm workers, which loses no run. The scheduler is in loralab.sweeps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from loralab.runs.plan import Plan
    from loralab.sweeps.launch import OpenDisplay
    from loralab.sweeps.live_folder import About, LiveFolder
    from loralab.sweeps.pool import Pool
    from loralab.sweeps.scheduler import Outcome

__all__ = ["PoolLauncher"]


@dataclass
class PoolConf:
    """hydra.launcher"""

    _target_: str = "hydra_plugins.loralab.pool_launcher.PoolLauncher"
    slots: int | None = None  # runs at once; null: one per GPU, or as many as the CPU has cores for
    slots_per_gpu: int = 1
    pack: Any = 1  # runs that train together on one copy of the weights, at most; auto: 8 on a GPU, else 1
    timeout: float | None = 1800  # seconds without progress (a step, a batch) after which a run counts as hung
    on_error: str = "continue"  # continue | stop: what the other runs do after a failure


ConfigStore.instance().store(group="hydra/launcher", name="pool", node=PoolConf, provider="loralab")


class PoolLauncher(Launcher):
    """Trains the jobs that are not done, as many at once as the machine has cores or GPUs for."""

    def __init__(
        self, slots: int | None, slots_per_gpu: int, pack: int | str, timeout: float | None, on_error: str
    ) -> None:
        self.slots, self.slots_per_gpu, self.pack = slots, slots_per_gpu, pack
        self.timeout, self.on_error = timeout, on_error
        self.about: About | None = None  # what a tuning session says of itself; None: a sweep
        self.live: LiveFolder | None = None
        self.pool: Pool | None = None
        self.display: OpenDisplay | None = None  # of a sweeper that launches several times; None: a sweep's
        self.known: Mapping[tuple[str, ...], Plan] = {}  # plans of jobs that a sweeper has made

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `launch`."""
        self.context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """The return of every job, in their order. Raises Interrupted once the runs have written their checkpoints."""
        from loralab.config.compose import Composer
        from loralab.sweeps.launch import train_missing
        from loralab.sweeps.progress import SweepProgress
        from loralab.sweeps.run_jobs import RunJobs

        self._check()
        setup_globals()
        composer = Composer(self.context.config_loader, self.config)
        runs = RunJobs(composer, job_overrides, first=initial_job_idx, known=self.known)
        outcomes = train_missing(
            runs,
            self._pool,
            stop_on_error=self.on_error == "stop",
            pack=self.packed(),
            live=self._live(runs.keys),
            display=self.display or SweepProgress,
        )
        return [
            self._returned(outcomes[key], overrides) for key, overrides in zip(runs.keys, job_overrides, strict=True)
        ]

    def _live(self, keys: Sequence[str]) -> "LiveFolder":
        """The folder in which the sweep's state is written, for all its launches. keys: of the first one's runs."""
        import atexit
        from pathlib import Path

        from loralab.sweeps.live_folder import LiveFolder, about_sweep

        if self.live is None:
            self.live = LiveFolder(Path(self.config.store), self.about or about_sweep(self.config, keys))
            atexit.register(self.live.close)
        return self.live

    def _check(self) -> None:
        from loralab.config.checks import one_of, within
        from loralab.sweeps.resources import check_pack

        one_of("hydra.launcher.on_error", self.on_error, ("continue", "stop"))
        within("hydra.launcher.slots_per_gpu", self.slots_per_gpu, at_least=1)
        check_pack(self.pack)
        if self.slots is not None:
            within("hydra.launcher.slots", self.slots, at_least=1)
        if self.timeout is not None:
            within("hydra.launcher.timeout", self.timeout, above=0)

    def _pool(self) -> "Pool":
        """The launcher's one pool, opened when it is first needed and closed at exit."""
        if self.pool is None:
            self.pool = self._opened()
        return self.pool

    def places(self) -> list[dict[str, str]]:
        """The environment of each worker; as many as runs train at once."""
        from loralab.sweeps.resources import slots

        self._check()
        train = self.config.train
        return slots(device=train.device, threads=train.threads, count=self.slots, per_gpu=self.slots_per_gpu)

    def packed(self) -> int:
        """The most runs that a worker trains together."""
        from loralab.sweeps.resources import pack_size

        alone = self.config.hydra.job.chdir  # which each run refuses in its own line
        return 1 if alone else pack_size(self.pack, self.places)

    def _opened(self) -> "Pool":
        import atexit

        from loralab.errors import UserError
        from loralab.sweeps.pool import Pool
        from loralab.sweeps.run_worker import Shared, prepare

        places = self.places()
        function = self.task_function
        if "<locals>" in function.__qualname__:
            raise UserError(
                f"hydra/launcher: pool's workers import the task function, and {function.__qualname__} cannot be; "
                "move it to the top of its module, or use hydra/launcher=basic"
            )
        shared = Shared(self.context, self.config.hydra.job.name, function.__module__, function.__qualname__)
        pool = Pool(places, prepare, shared, timeout=self.timeout)
        atexit.register(pool.close)
        return pool

    def _returned(self, outcome: "Outcome", overrides: Sequence[str]) -> JobReturn:
        from loralab.store.run_directory import FINAL

        job = RunReturn(overrides=filter_overrides(overrides), task_name=self.config.hydra.job.name)
        job.status = JobStatus.COMPLETED if outcome.status in (*FINAL, "paused") else JobStatus.FAILED
        job.found = outcome.value
        return job


class RunReturn(JobReturn):
    """The return of a job whose failure was reported already: reading its value raises, and prints nothing."""

    found: Any = None

    @property
    def return_value(self) -> Any:
        """The primary metric of the best validation step; raises RunsFailed where the run failed."""
        from loralab.errors import RunsFailed

        if self.status != JobStatus.COMPLETED:
            raise RunsFailed(f"run {' '.join(self.overrides or ())} failed")
        return self.found

    @return_value.setter
    def return_value(self, value: Any) -> None:
        self.found = value
