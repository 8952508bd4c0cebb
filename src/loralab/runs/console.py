"""A run's output for people: a progress bar on a terminal, plain lines elsewhere, and a table of scores at the end."""

import contextlib
import contextvars
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress

from loralab.store.answers import answers_table
from loralab.store.mirror import Place
from loralab.store.record import FailedRecord, PausedRecord, PretrainingRecord, Record, split_scores
from loralab.text import align, bold, figure, printed, shown

__all__ = ["Console", "group_table", "pause", "report_to", "scores_table", "summary"]

# Lines of training loss per run in a plain log; a terminal shows the bar instead.
PLAIN_LINES = 10
# Minimum seconds between two updates of the bar, which is drawn four times a second.
BAR_SECONDS = 0.1


class Console:
    """The output of one run: progress on standard error, final scores on standard output.

    title: the run's overrides in a multirun, whose runs are shown in a few lines each; None for a single run.
    """

    def __init__(self, err: TextIO, out: TextIO, title: str | None = None) -> None:
        self.err, self.out, self.title = err, out, title
        # printed when the run starts, since a mistake that ends it before is one line alone
        self.warnings: list[str] = []
        self.rows, self.data = "", ""
        self.rates: str | None = None
        self.bar: Progress | None = None
        self.drawn = 0.0  # time of the bar's last update
        self.steps = 0
        self.printed = 0  # tenths of the run already printed as plain lines

    @staticmethod
    def for_terminal(title: str | None = None) -> "Console":
        """The console that `report_to` has set, or a new one on this process's standard streams."""
        return _reporter.get() or Console(sys.stderr, sys.stdout, title)

    def loading(self, model: str, task: str) -> None:
        """Announces the loading of weights and texts, which takes seconds; on a terminal and for a single run only."""
        if self.title is None and self.err.isatty():
            self._say(shown(f"loading {model}, reading {task}"))

    def read(self, rows: Mapping[str, int], data: str, rates: str | None = None) -> None:
        """Notes how many rows each split has, a line on the data, and λ with the rates; for a single run only."""
        if self.title is None:
            self.data = data
            self.rows = "; rows: " + ", ".join(f"{split} {count:,}" for split, count in rows.items())
            self.rates = rates

    def warn(self, line: str) -> None:
        """Notes a warning for a single run; a sweep prints it once for all of its runs."""
        if self.title is None:
            self.warnings.append(f"warning: {shown(line)}")

    def started(self, name: str, steps: int, groups: Sequence[dict[str, Any]], *, resumed_at: int) -> None:
        """Prints the warnings, the run's name and rows, and every parameter group with its resolved rates."""
        self.steps, self.printed = steps, resumed_at * PLAIN_LINES // max(1, steps)
        length = f"{steps} step{'s' if steps != 1 else ''}"
        going_on = f", going on from step {resumed_at}" if resumed_at else ""
        if self.title is not None:
            rates = "  ".join(f"{g['name']} {g['lr']:.3g}" for g in groups)
            self._say(f"{bold(shown(self.title), self.err)}\n    {length}{going_on}  lr: {rates}")
        else:
            title = f"run {bold(shown(name), self.err)}: {length}{going_on}{self.rows}"
            facts = [line for line in (self.data, self.rates) if line]
            self._say("\n".join([*self.warnings, title, *facts, *group_table(groups)]))
        if self.err.isatty() and os.environ.get("TERM") != "dumb":
            self._start_bar(resumed_at)

    def mirrored(self, where: Place) -> None:
        """Prints where the tracker mirrors a single run, and how to see it; a sweep prints it once."""
        if self.title is None:
            self._say(f"mirrored in {shown(where.run)}")

    def step(self, step: int) -> None:
        """Updates the bar after a step."""
        if self.bar is not None and (step == self.steps or time.monotonic() - self.drawn >= BAR_SECONDS):
            self.drawn = time.monotonic()
            self.bar.update(self.bar.task_ids[0], completed=step)

    def alive(self) -> None:
        """Heartbeat during evaluation and while waiting for another process; a sweep detects hangs by it."""

    def line(self, line: dict[str, Any]) -> None:
        """Shows one line of metrics.jsonl."""
        values = "  ".join(f"{name} {figure(value)}" for name, value in line["values"].items())
        if line["split"] == "train":
            if self.bar is not None:
                self.bar.update(self.bar.task_ids[0], description=values)
                return
            tenth = line["step"] * PLAIN_LINES // self.steps
            if tenth == self.printed or self.title is not None:
                return
            self.printed = tenth
        at = f"{line['step']:>{len(str(self.steps))}}/{self.steps}"
        self._say(f"{line['seconds']:8.1f} s  step {at}  {line['split']:<10}  {values}")

    def close(self) -> None:
        """Removes the bar."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def interrupted(self, step: int, steps: int) -> None:
        """Prints that the run can be resumed."""
        self.close()
        self._say(f"stopped at step {step} of {steps}; a checkpoint is written; run the same command again to resume")

    def already_done(self, record: Record | PausedRecord | PretrainingRecord, path: Path) -> None:
        """Prints that nothing was trained, and the stored scores."""
        if self.title is not None:
            self._say(f"{bold(shown(self.title), self.err)}\n    already done")
        elif record["status"] == "paused":
            print("this run is already there; its record:", file=self.out)
        else:
            again = " (--again trains it once more)" if "run_id" in record else ""  # a pretraining has no such flag
            print(f"this run is already done{again}; its record:", file=self.out)
        self.finished(record, path)

    def finished(self, record: Record | PausedRecord | PretrainingRecord, path: Path) -> None:
        """Prints a few answers before and after training, the final scores, the time and the run's directory."""
        if self.title is not None:
            status = pause(record) if record["status"] == "paused" else record["status"]
            primary = record["metrics"]["primary"]
            figures = [
                f"{split} {figure(scores['last'][primary])}"
                for split, scores in split_scores(record["metrics"]).items()
                if scores["last"] is not None
            ]
            line = "  ".join([status, primary, *figures, f"{record['timing']['seconds']:.1f} s", str(path)])
            print(printed([f"    {line}"]), file=self.out, flush=True)
            return
        first, *rest = summary(record)
        lines = [*answers_table(path / "answers.json"), bold(first, self.out), *rest, shown(str(path), longest=None)]
        print("\n".join(lines), file=self.out, flush=True)

    def advise(self, line: str) -> None:
        """Prints what to change, after a single run."""
        if self.title is None:
            self._say(f"advice: {shown(line)}")

    def _say(self, text: str) -> None:
        if self.bar is not None:
            self.bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=self.err, flush=True)

    def _start_bar(self, completed: int) -> None:
        from rich.console import Console as Screen
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeElapsedColumn as Elapsed
        from rich.progress import TimeRemainingColumn as Remaining

        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            Elapsed(), TextColumn("left"), Remaining(),
            console=Screen(file=self.err), transient=True, refresh_per_second=4,
        )  # fmt: skip
        self.bar.add_task("training", total=self.steps, completed=completed)
        self.bar.start()


_reporter: contextvars.ContextVar[Console | None] = contextvars.ContextVar("reporter", default=None)


@contextlib.contextmanager
def report_to(console: Console) -> Iterator[None]:
    """Inside, runs use `console`: a sweep's worker has no terminal."""
    before = _reporter.set(console)
    try:
        yield
    finally:
        _reporter.reset(before)


def pause(record: PausedRecord) -> str:
    """How far the run came, and its last validation loss."""
    last = record["metrics"]["validation"]["last"]
    loss = "" if last is None else f" (validation loss {figure(last['loss'])})"
    return f"paused at step {record['steps']} of {record['total_steps']}{loss}"


def summary(record: Record | PausedRecord | PretrainingRecord | FailedRecord) -> list[str]:
    """A record in a few lines: status, scores by split, time; of a failed one, the last line of its error."""
    if record["status"] == "failed":
        return ["failed", shown(record["error"].strip().splitlines()[-1])]
    timing, parameters = record["timing"], record["parameters"]
    ended: str = record["status"]
    if record["status"] == "diverged":
        ended += f" at step {record['steps']}"
    elif record["status"] == "success" and (total := dict(record).get("total_steps")) is not None:
        ended += f", ended early at step {record['steps']} of {total} by train.patience"
    elif record["status"] == "paused":
        ended = f"{pause(record)}; the same command without train.pause_at goes on"
    memory = record["memory"]["device_bytes"] or record["memory"]["host_bytes"]
    share = parameters["trainable"] / parameters["total"]
    trained = "trained" if record["steps"] else "trainable:"
    return [
        ended,
        *scores_table(record["metrics"]),
        f"{timing['seconds']:.1f} s  ({timing['steps_per_second']:.2f} steps/s, "
        f"{timing['tokens_per_second']:,.0f} tokens/s, {memory / 2**30:.1f} GiB at most)",
        f"{trained} {parameters['trainable']:,} of {parameters['total']:,} parameters ({share:.2%})",
    ]


def group_table(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table, in lines, of every parameter group with its resolved learning rate and weight decay."""
    header = ("group", "tensors", "parameters", "lr", "weight decay")
    rows = [
        (g["name"], str(g["tensors"]), f"{g['parameters']:,}", f"{g['lr']:.3g}", f"{g['weight_decay']:g}")
        for g in groups
    ]
    return align([header, *rows])


def scores_table(metrics: dict[str, Any]) -> list[str]:
    """Every split's scores at the last and the best validation step; one line where the two steps are equal."""
    rows: list[Sequence[str]] = []
    names: list[str] = []
    for split, scores in split_scores(metrics).items():
        last, best = scores["last"], scores["best"]
        if last is None:
            continue
        names = names or [name for name in last if name != "step"]
        same = best is not None and best["step"] == last["step"]
        for first, at, found in ((split, "last and best" if same else "last", last), ("", "best", best)):
            if found is not None and not (same and at == "best"):
                values = [figure(found[name]) if name in found else "" for name in names]
                rows.append((first, at, str(found["step"]), *values))
    return align([("", "", "step", *names), *rows], text=2) if rows else []
