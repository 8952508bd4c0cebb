"""TensorBoard: event files in <store>/tensorboard/PROJECT/GROUP/RUN, and the settings for its HPARAMS tab."""

import shutil
from typing import Any

from loralab.store.mirror import Ending, Page, Place, file_name, flat

__all__ = ["TensorboardMirror"]

# Seconds between two writes to disk; a kill loses none of them, since a resumed run sends all lines again.
FLUSH_SECONDS = 10


class TensorboardMirror:
    """A run's event files. A resumed run begins a new one, in which it first takes back all that is in the others."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.root = page.store / "tensorboard"
        parts = [page.project, *([page.group] if page.group else []), page.directory.name]
        self.folder = self.root.joinpath(*map(file_name, parts))
        self.writer: Any = None
        self.ended: Any = None  # the HPARAMS tab's entry for a session that ended well

    def start(self, *, resumed: bool) -> Place:
        """purge_step=0 has TensorBoard forget the steps of earlier files, from before the interruption."""
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        if not resumed:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.writer = SummaryWriter(str(self.folder), purge_step=0, flush_secs=FLUSH_SECONDS)
        settings = {key: _plain(value) for key, value in flat(self.page.config).items() if value is not None}
        _, begun, self.ended = hparams(settings, {})  # type: ignore[no-untyped-call]
        self.writer.file_writer.add_summary(begun)
        about = {"name": self.page.name, "tags": ", ".join(self.page.tags), "directory": str(self.page.directory)}
        for key, text in about.items():
            self.writer.add_text(key, text)
        how = f"`tensorboard --logdir {self.root}` shows it"
        return Place(f"{self.folder}; {how}", f"{self.folder.parent}; {how}")

    def there(self) -> set[tuple[str, int]]:
        """Nothing: all was taken back."""
        return set()

    def log(self, step: int, values: dict[str, float], at: float) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step, walltime=at)

    def finish(self, ending: Ending) -> None:
        self.writer.add_text("status", ending.status)
        if ending.status == "success":
            self.writer.file_writer.add_summary(self.ended)
        self.writer.close()


def _plain(value: Any) -> bool | float | str:
    """The kinds of value that a hyperparameter has."""
    return value if isinstance(value, bool | int | float | str) else str(value)
