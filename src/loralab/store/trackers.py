"""Trackers mirror metrics.jsonl. Nothing reads them back, and their errors never end a run."""

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

__all__ = ["NoTracker", "Tracker", "WandbTracker", "open_tracker", "wandb_mode"]

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """A mirror of a run's metrics; as a context manager it is finished also after an exception."""

    def log(self, line: dict[str, Any]) -> None:
        """Sends one line of metrics.jsonl."""

    def summarise(self, summary: dict[str, Any]) -> None:
        """Sends the final metrics."""

    def __enter__(self) -> "Tracker": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class NoTracker:
    """Sends nothing."""

    def log(self, line: dict[str, Any]) -> None:
        """Drops the line."""

    def summarise(self, summary: dict[str, Any]) -> None:
        """Drops the summary."""

    def __enter__(self) -> "NoTracker":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Nothing to finish."""


class WandbTracker:
    """Weights & Biases; the W&B run's id is the run's hash, so that a resumed run continues its page.

    wandb is imported and started when the run starts. After an error of wandb's, the run continues without it, with one
    warning.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings  # wandb.init's keyword arguments
        self.run: Any = None

    def __enter__(self) -> "WandbTracker":
        self._attempt(self._start)
        return self

    def log(self, line: dict[str, Any]) -> None:
        values = {f"{line['split']}/{name}": value for name, value in line["values"].items()}
        extra = {name: line[name] for name in ("lr_A", "lr_B", "seconds")}
        self._attempt(lambda: self.run.log({**values, **extra}, step=line["step"]))

    def summarise(self, summary: dict[str, Any]) -> None:
        self._attempt(lambda: self.run.summary.update(summary))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._attempt(lambda: self.run.finish(exit_code=0 if kind is None else 1))

    def _start(self) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        from loralab.compat.wandb import quiet_settings

        Path(self.settings["dir"]).mkdir(parents=True, exist_ok=True)
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
            self.run = wandb.init(**self.settings, settings=quiet_settings())

    def _attempt(self, action: Callable[[], Any]) -> None:
        if self.run is None and action != self._start:
            return
        try:
            action()
        except Exception as error:  # an error of the tracker's must not end the run: one warning, then it is off
            logger.warning("wandb failed, and the run goes on without it: %s", error)
            self.run = None


def open_tracker(
    *, kind: str, mode: str, name: str, run_id: str, config: dict[str, Any], directory: Path, **settings: Any
) -> Tracker:
    """A tracker of this kind (wandb, none) for the run called `name`; settings: project, entity, group, tags."""
    if kind == "none" or mode == "disabled":
        return NoTracker()
    mode = wandb_mode() if mode == "auto" else mode
    given = {"id": run_id, "name": name, "config": config, "dir": str(directory), "mode": mode, "resume": "allow"}
    return WandbTracker({**given, **settings})


def wandb_mode() -> str:
    """`online` where an API key is found (environment or netrc), else `offline`; WANDB_MODE takes precedence."""
    import netrc

    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    if os.environ.get("WANDB_API_KEY"):
        return "online"
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    try:
        return "online" if netrc.netrc().authenticators(host) else "offline"
    except (FileNotFoundError, netrc.NetrcParseError):
        return "offline"
