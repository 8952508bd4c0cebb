"""What a Trackio run has logged, and where: its public interface does not say. Written for trackio 0.43.0."""

from pathlib import Path
from typing import Any

__all__ = ["folder", "logged"]


def folder() -> Path:
    """The folder of this process's local projects."""
    from trackio.utils import TRACKIO_DIR

    return Path(TRACKIO_DIR)


def logged(run: Any) -> set[tuple[str, int]]:
    """The names and steps of a run's numbers; empty where the project is not local."""
    from trackio.sqlite_storage import SQLiteStorage

    rows = SQLiteStorage.get_logs(run.project, run.name, run_id=run.id)
    return {(name, row["step"]) for row in rows for name in row if name not in ("step", "timestamp")}
