"""Trackio: a run of the project, in <store>/trackio, or where TRACKIO_DIR or TRACKIO_SPACE_ID says."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loralab.store.mirror import Ending, Page, Place, flat

__all__ = ["TrackioMirror"]


class TrackioMirror:
    """A run in Trackio, which knows it by its name: what people call it, and its hash. It has no status."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.run: Any = None

    def start(self, *, resumed: bool) -> Place:
        """Trackio reads TRACKIO_DIR when it is imported: a process has one folder, whatever its runs' stores are."""
        os.environ.setdefault("TRACKIO_DIR", str(self.page.store.resolve() / "trackio"))
        import trackio

        from loralab.compat.trackio import folder

        page = self.page
        with _silence():
            self.run = trackio.init(
                project=page.project,
                name=page.name if page.run_id in page.name else f"{page.name}-{page.run_id}",
                group=page.group,
                config={**flat(page.config), "tags": page.tags},
                resume="allow" if resumed else "never",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        if remote := os.environ.get("TRACKIO_SPACE_ID") or os.environ.get("TRACKIO_SERVER_URL"):
            where = f"project {page.project} of {remote}"
        else:
            where = f"{folder()}; `TRACKIO_DIR={folder()} trackio show --project {page.project}` shows it"
        return Place(where, where)

    def there(self) -> set[tuple[str, int]]:
        from loralab.compat.trackio import logged

        return logged(self.run)

    def log(self, step: int, values: dict[str, float], at: float) -> None:
        self.run.log(values, step=step)

    def finish(self, ending: Ending) -> None:
        import trackio

        with _silence():
            trackio.finish()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Trackio prints what it does on standard output, which has the run's scores."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
