"""Multiruns of other packages' launchers and sweepers: `loralab watch` shows them, and they end with an answer."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from loralab.compat.hydra import each_launcher
from loralab.config.compose import Composer
from loralab.errors import UserError
from loralab.training.signals import Interrupted

if TYPE_CHECKING:
    from loralab.sweeps.live_folder import LiveFolder
    from loralab.sweeps.run_jobs import RunJobs
    from loralab.sweeps.sweep_file import SweepFile

__all__ = ["Followed", "follow_others"]

OURS = "hydra_plugins.loralab."
"""The package of the plugins that do both themselves."""


@contextlib.contextmanager
def follow_others() -> Iterator[None]:
    """Inside, what other packages' launchers or sweepers train is noted in the store; then its answer is printed."""
    found: list[Followed] = []

    def follow(launcher: Launcher, context: HydraContext, master: DictConfig) -> Launcher:
        sweeper = str(master.hydra.sweeper._target_)
        own_answer, own_page = sweeper.startswith(OURS), type(launcher).__module__.startswith(OURS)
        if (own_answer and own_page) or sweeper == f"{OURS}tune_sweeper.TuneSweeper":
            return launcher
        composer = Composer(context.config_loader, master)
        found.append(Followed(launcher, composer, page=not own_page, answer=not own_answer))
        return found[-1]

    stopped = False
    try:
        with each_launcher(follow):
            yield
    except (KeyboardInterrupt, Interrupted):
        stopped = True
        raise
    finally:
        for each in found:
            each.close(stopped=stopped)
            if not stopped:
                each.conclude()


class Followed(Launcher):
    """A launcher whose launches are noted; one that it wraps stays as it is, since some are pickled.

    page: whether it keeps the sweep's folder for `loralab watch`, which the pool does itself; answer: whether it notes
    the sweep for its answer, which the study sweeper does itself.
    """

    def __init__(self, launcher: Launcher, composer: Composer, *, page: bool, answer: bool) -> None:
        self.launcher, self.composer, self.page, self.answer = launcher, composer, page, answer
        self.store = Path(composer.master.store)
        self.jobs: list[tuple[str, ...]] = []
        self.live: LiveFolder | None = None
        self.sweep: SweepFile | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `launch`; the launcher has been set up already."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """The launcher's returns."""
        # what does not compose, or has a mistake, is reported by the launcher
        with contextlib.suppress(UserError, HydraException, OmegaConfBaseException, OSError):
            self._note([tuple(job) for job in job_overrides], initial_job_idx)
        return self.launcher.launch(job_overrides, initial_job_idx)

    def close(self, *, stopped: bool) -> None:
        """The sweep has ended, or was stopped by the user."""
        if self.live is not None:
            assert self.live.display is not None
            self.live.display.halted = "stopped" if stopped else ""
            self.live.close()

    def conclude(self) -> None:
        """Prints the answer of what was launched."""
        from loralab.cli.sweep_answer import conclude

        if self.sweep is not None:
            conclude(self.sweep, self.store, None)

    def _note(self, jobs: list[tuple[str, ...]], first: int) -> None:
        """A job's run is planned as the pool plans it, which takes 8 ms."""
        from loralab.sweeps.run_jobs import RunJobs

        looked = time.time()
        runs = RunJobs(self.composer, jobs, first=first)
        self.jobs += jobs
        if self.page:
            self._show(runs, looked)
        if self.answer:
            self._list(runs)

    def _show(self, runs: "RunJobs", looked: float) -> None:
        from loralab.sweeps.live_folder import LiveFolder, about_sweep
        from loralab.sweeps.progress import SweepProgress

        if self.live is None:
            self.live = LiveFolder(self.store, about_sweep(self.composer.master, runs.keys))
        keys = list(dict.fromkeys(runs.keys))
        missing = [key for key in keys if runs.done(key) is None]
        self.live.launched({key: runs.settings(key) for key in keys}, to_train=missing, slots=0, at=looked)
        self.live.follow(SweepProgress([], 0, Counter()))  # what is at work is read from the runs' locks

    def _list(self, runs: "RunJobs") -> None:
        """A sweep that launches again keeps the ID of its first launch, as its page does."""
        from loralab.sweeps.grid import axes
        from loralab.sweeps.sweep_file import SweepFile, sweep_id

        there = self.sweep or SweepFile(sweep_id("sweep", runs.keys), None, (), None, (), free=True)
        names = tuple(dict.fromkeys((*there.runs, *runs.keys)))
        self.sweep = replace(there, axes=tuple(axes(self.jobs)), runs=names)
        self.sweep.write(self.store)
