"""MLflow: a run of the experiment that has the project's name, in <store>/mlflow.db or at MLFLOW_TRACKING_URI."""

import contextlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from loralab.files import locked
from loralab.store.mirror import Ending, Page, Place, flat

__all__ = ["MlflowMirror"]

# MLflow's own limits of one request, and of a value.
AT_ONCE = 100
LONGEST = 6000
ALONE_SECONDS = 120  # making the tables takes some seconds
# The tags by which a resumed run finds its MLflow run: MLflow draws the ids of its runs itself.
RUN, DIRECTORY = "loralab.run", "loralab.directory"


class MlflowMirror:
    """A run in MLflow. A run that is cut off is continued, also without a checkpoint; one that has ended never is."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.client: Any = None
        self.id = ""

    def start(self, *, resumed: bool) -> Place:
        """A server that does not answer costs a run 50 s, once (measured); with MLflow's own defaults, many minutes."""
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        local = f"sqlite:///{self.page.store.resolve() / 'mlflow.db'}"
        address = os.environ.get("MLFLOW_TRACKING_URI") or local
        with _alone(self.page.store) if address == local else contextlib.nullcontext():
            self.client = MlflowClient(address)
            experiment = self._experiment(f"{self.page.store.resolve() / 'mlruns'}" if address == local else None)
            self._open(experiment)
        if address.startswith("http"):
            every = f"{address.rstrip('/')}/#/experiments/{experiment}"
            return Place(f"{every}/runs/{self.id}", every)
        where = f"{address}; `mlflow ui --backend-store-uri {address}` shows it"
        return Place(where, where)

    def there(self) -> set[tuple[str, int]]:
        names = self.client.get_run(self.id).data.metrics
        return {(name, each.step) for name in names for each in self.client.get_metric_history(self.id, name)}

    def log(self, step: int, values: dict[str, float], at: float) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(name, value, int(at * 1000), step) for name, value in values.items()]
        for first in range(0, len(metrics), AT_ONCE):
            self.client.log_batch(self.id, metrics=metrics[first : first + AT_ONCE])

    def finish(self, ending: Ending) -> None:
        self.client.set_tag(self.id, "loralab.status", ending.status)
        known = {"failed": "FAILED", "interrupted": "KILLED", "paused": "KILLED"}
        self.client.set_terminated(self.id, known.get(ending.status, "FINISHED"))

    def _experiment(self, artifacts: str | None) -> str:
        """The id of the project's experiment; another process of the sweep may make it at the same time."""
        from mlflow.exceptions import MlflowException

        name = self.page.project
        if (there := self.client.get_experiment_by_name(name)) is None:
            try:
                return str(self.client.create_experiment(name, artifact_location=artifacts))
            except MlflowException:
                there = self.client.get_experiment_by_name(name)
                if there is None:
                    raise
        return str(there.experiment_id)

    def _open(self, experiment: str) -> None:
        """Continues the run of this directory that has not ended, or begins one."""
        from mlflow.entities import Param

        page = self.page
        directory = str(page.directory.resolve())
        for found in self.client.search_runs([experiment], f"tags.`{RUN}` = '{page.run_id}'"):
            if found.data.tags.get(DIRECTORY) == directory and found.info.status != "FINISHED":
                self.id = found.info.run_id
                self.client.update_run(self.id, status="RUNNING", name=page.name)
                return
        self.id = self.client.create_run(experiment, run_name=page.name, tags=self._tags(directory)).info.run_id
        params = [Param(_key(key), str(value)[:LONGEST]) for key, value in flat(page.config).items()]
        for first in range(0, len(params), AT_ONCE):
            self.client.log_batch(self.id, params=params[first : first + AT_ONCE])

    def _tags(self, directory: str) -> Mapping[str, str]:
        page = self.page
        own = {RUN: page.run_id, DIRECTORY: directory, "mlflow.source.name": "loralab"}
        commit = page.config.get("code", {}).get("commit")
        if commit is not None:
            own["mlflow.source.git.commit"] = commit
        if page.group is not None:
            own["group"] = page.group
        return own | {_key(tag): "true" for tag in page.tags}


_ENVIRONMENT = {
    "MLFLOW_LOGGING_LEVEL": "WARNING",  # it tells of each table that it makes
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}


@contextlib.contextmanager
def _alone(store: Path) -> Iterator[None]:
    """One process of a store at a time, for two minutes at most: where two make MLflow's tables at once, one fails."""
    file = store / "locks" / "mlflow.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + ALONE_SECONDS
    while (handle := locked(os.open(file, os.O_RDWR | os.O_CREAT, 0o644))) is None and time.monotonic() < end:
        time.sleep(0.1)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _key(text: str) -> str:
    """The text with the characters that MLflow takes in a key."""
    return re.sub(r"[^\w.\- :/]", "_", text)[:250]
