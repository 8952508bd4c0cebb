"""Settings of a task's data and splits: the config's `task` node without the metric and the class weights."""

from dataclasses import dataclass, field

from loralab.tasks.splits import Kind

__all__ = ["TaskFiles", "TaskSettings"]


@dataclass(frozen=True)
class TaskFiles:
    """The user's own data file for each split; None for a split without one."""

    train: str | None = None
    validation: str | None = None
    test: str | None = None

    def given(self) -> dict[str, str]:
        """{split: file} of the files that are set."""
        files = {"train": self.train, "validation": self.validation, "test": self.test}
        return {part: file for part, file in files.items() if file is not None}


@dataclass(frozen=True)
class TaskSettings:
    """The inputs of `read` and `identity`. The settings that a task uses are in its row of `registry.SOURCES`.

    `text` names one or two columns. `train_rows` keeps a fixed random part of the training split, `eval_rows` one of
    each other split; None keeps all. A split without a file is its share of the training file, cut by `split_seed`.
    """

    name: str
    files: TaskFiles = field(default_factory=TaskFiles)
    text: tuple[str, ...] = ()
    label: str | None = None
    kind: Kind | None = None
    revision: str | None = None
    validation_share: float | None = None
    test_share: float | None = None
    split_seed: int | None = None
    train_rows: int | None = None
    eval_rows: int | None = None
