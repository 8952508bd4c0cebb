"""The curves of many runs while they train: each metrics.jsonl is read on from where it was read to."""

from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

from loralab.files import read_regular
from loralab.store.metrics_file import MetricsFile, parsed, unreadable

__all__ = ["CurveFile"]

MOST_POINTS = 120  # of a curve on the page: about one for every three pixels
SPLITS = ("train", "validation")
PAIRS = 5  # of lines, whose median is the rate: about the last 50 steps


@dataclass
class CurveFile:
    """The metrics.jsonl of one run.

    values: `split/metric` -> its (step, value) pairs, None where the value was not finite; step: of the last line;
    seconds: of training and evaluation up to it; version: grows with each change.
    """

    directory: Path
    values: dict[str, list[tuple[int, float | None]]] = field(default_factory=dict)
    step: int = 0
    seconds: float = 0.0
    version: int = 0
    _rates: list[float] = field(default_factory=list)
    _read: tuple[int, int] = (0, 0)  # the file, and its bytes that were read

    def read(self) -> None:
        """Reads the lines that are new; all of them where the file was cut by a run that goes on from a checkpoint.

        Raises UserError for a damaged file.
        """
        path = self.directory / MetricsFile.FILE
        try:
            there = path.stat()
            inode, size = self._read
            if (there.st_ino, there.st_size) == self._read:
                return
            if there.st_ino != inode or there.st_size < size:
                self._forget()
                size = 0
            content = read_regular(path)[size:]
        except FileNotFoundError:
            if self._read != (0, 0):
                self._forget()
            return
        except OSError as error:
            raise unreadable(path, error) from error
        whole = content.rfind(b"\n") + 1  # what has no end yet is being written
        for text in content[:whole].splitlines():
            self._add(parsed(text, f"{path}, after byte {size}", self.directory))
        self._read = (there.st_ino, size + whole)
        self.version += bool(whole)

    @property
    def rate(self) -> float | None:
        """Steps per second of training, lately; None before two lines."""
        return median(self._rates) if self._rates else None

    def last(self, split: str) -> dict[str, float | None]:
        """The last value of each metric of a split, by `split/metric`."""
        return {key: points[-1][1] for key, points in self.values.items() if key.startswith(f"{split}/")}

    def thinned(self) -> dict[str, list[list[float]]]:
        """`split/metric` -> at most MOST_POINTS pairs [step, value]; of a longer curve, means of neighbours."""
        return {key: _thinned(points) for key, points in self.values.items()}

    def _add(self, line: dict[str, Any]) -> None:
        step, seconds = int(line["step"]), float(line.get("seconds") or 0.0)
        if line["split"] == "train" and step > self.step and seconds > self.seconds:
            self._rates = [*self._rates[1 - PAIRS :], (step - self.step) / (seconds - self.seconds)]
        self.step, self.seconds = step, seconds
        if line["split"] in SPLITS:
            for name, value in line["values"].items():
                self.values.setdefault(f"{line['split']}/{name}", []).append((step, value))

    def _forget(self) -> None:
        self.values, self._rates, self._read = {}, [], (0, 0)
        self.step, self.seconds, self.version = 0, 0.0, self.version + 1


def _thinned(points: list[tuple[int, float | None]]) -> list[list[float]]:
    there = [(step, value) for step, value in points if value is not None]
    size = -(-len(there) // MOST_POINTS)
    groups = [there[at : at + size] for at in range(0, len(there), max(1, size))]
    return [[_short(fmean(step for step, _ in group)), _short(fmean(v for _, v in group))] for group in groups]


def _short(value: float) -> float:
    return float(f"{value:.6g}")
