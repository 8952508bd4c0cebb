"""What a person sees of a run: a bar on a terminal, plain lines elsewhere, and a table at the end."""

import sys
from pathlib import Path
from typing import Any

from rich.console import Console as Screen
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

__all__ = ["Console"]

# Lines of training loss that a plain log gets in a run; a terminal has the bar.
PLAIN_LINES = 10


class Console:
    """The screen of one run after another. Standard error has the progress, standard output the final table."""

    def __init__(self, screen: Screen, out: Screen) -> None:
        self.screen, self.out = screen, out
        self.bar: Progress | None = None
        self.steps = 0
        self.printed = 0  # tenths of the run that have their plain line

    @classmethod
    def for_terminal(cls) -> "Console":
        """On this process's own streams; plain text where they are not a terminal."""
        wide = None if sys.stdout.isatty() else 120
        return cls(Screen(stderr=True, highlight=False), Screen(highlight=False, width=wide, soft_wrap=True))

    def started(self, name: str, steps: int, groups: list[dict[str, Any]], *, resumed_at: int) -> None:
        """Names the run, and shows every parameter group with its resolved rates."""
        self.steps, self.printed = steps, resumed_at * PLAIN_LINES // steps
        self.screen.print(f"run {name}: {steps} steps" + (f", going on from step {resumed_at}" if resumed_at else ""))
        table = Table(box=None, pad_edge=False, header_style="")
        for column in ("group", "tensors", "parameters", "lr", "weight decay"):
            table.add_column(column, justify="left" if column == "group" else "right")
        for g in groups:
            table.add_row(g["name"], str(g["tensors"]), f"{g['parameters']:,}", f"{g['lr']:.3g}", f"{g['weight_decay']:g}")
        self.screen.print(table)
        if self.screen.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.bar = Progress(*columns, console=self.screen, transient=True)
            self.bar.add_task("training", total=steps, completed=resumed_at)
            self.bar.start()

    def step(self, step: int) -> None:
        """Between two steps."""
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=step)

    def line(self, line: dict[str, Any]) -> None:
        """One line of metrics.jsonl."""
        values = "  ".join(f"{name} {value:.4f}" if value is not None else f"{name} -" for name, value in line["values"].items())
        if line["split"] == "train":
            if self.bar is not None:
                self.bar.update(self.bar.task_ids[0], description=values)
                return
            if line["step"] * PLAIN_LINES // self.steps == self.printed:
                return
            self.printed = line["step"] * PLAIN_LINES // self.steps
        self.screen.print(f"{line['seconds']:8.1f} s  step {line['step']:>{len(str(self.steps))}}  {line['split']:<10}  {values}")

    def close(self) -> None:
        """Takes the bar away."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def interrupted(self, step: int, steps: int) -> None:
        """Says that the run can go on."""
        self.close()
        self.screen.print(f"stopped at step {step} of {steps}; a checkpoint is written, and the same command goes on from it")

    def already_done(self, record: dict[str, Any], path: Path) -> None:
        """Says that nothing was trained, with the stored figures."""
        self.out.print("this run is already done; its record:")
        self.finished(record, path)

    def finished(self, record: dict[str, Any], path: Path) -> None:
        """The table at the end: metrics, time, parameters, and where it all is."""
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(style="bold")
        table.add_column()
        timing, parameters = record["timing"], record["parameters"]
        table.add_row("status", record["status"])
        for split, scores in record["metrics"].items():
            for at in ("last", "best") if isinstance(scores, dict) else ():
                if scores[at] is not None:
                    shown = "  ".join(f"{k} {v:.4f}" for k, v in scores[at].items() if k != "step" and v is not None)
                    table.add_row(f"{split}, {at} step", f"{shown}  (step {scores[at]['step']})")
        table.add_row("time", f"{timing['seconds']:.1f} s ({timing['steps_per_second']:.2f} steps/s, {timing['tokens_per_second']:,.0f} tokens/s)")
        share = parameters["trainable"] / parameters["total"]
        table.add_row("trained", f"{parameters['trainable']:,} of {parameters['total']:,} parameters ({share:.2%})")
        table.add_row("run", str(path))
        self.out.print(table)
