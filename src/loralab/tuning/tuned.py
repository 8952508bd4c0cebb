"""What a tuning session recommends, as tune.yaml keeps it: `python train.py tuned=FILE` trains it."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from loralab.config.tuned_file import FILE, read_tuned
from loralab.entries import typed
from loralab.errors import UserError
from loralab.files import write_text
from loralab.text import clock, count

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Tuned", "rate"]

HEAD = "# Written by `loralab tune`; `python train.py tuned=THIS_FILE` trains the recommended run.\n"


@dataclass(frozen=True)
class Tuned:
    """The recommendation of a session.

    settings: what was found, by key, without the seed; overrides: those of the command, with these, as train.py takes
    them; loss: the estimated final validation loss; plateau: the smallest and the largest rate within noise of it, None
    where rates were not searched; noise: the standard deviation of a final loss between seeds, None if unknown;
    predicted: the default rate, of each λ where these were searched; runs: a mapping for each trial;
    cost: full_runs and seconds of what the session trained; gain: over the default, None unless `confirm` asked.
    """

    file: Path
    settings: Mapping[str, Any]
    overrides: Sequence[str]
    loss: float
    plateau: tuple[float, float] | None
    noise: float | None
    notes: Sequence[str]
    predicted: Sequence[Mapping[str, float]]
    runs: Sequence[Mapping[str, Any]]
    cost: Mapping[str, float]
    gain: Mapping[str, Any] | None = field(default=None)

    @property
    def command(self) -> str:
        """The shell command that trains the recommended run."""
        return f"{typed('train')} {shlex.join(self.overrides)}"

    @property
    def figure(self) -> Path:
        """The validation losses against the rate; there only if rates were searched."""
        return self.file.with_suffix(".png")

    @property
    def trials(self) -> "pd.DataFrame":
        """One row for each trial: run (its hash), the searched settings, seed, until, status, loss, share, before."""
        import pandas as pd

        return pd.DataFrame(self.runs)

    def write(self) -> None:
        """Writes the file in one piece."""
        values = {
            "tune": 1, "overrides": list(self.overrides), "settings": _plain(self.settings), "loss": self.loss,
            "plateau": None if self.plateau is None else list(self.plateau), "noise": self.noise,
            "notes": list(self.notes), "predicted": _plain(self.predicted), "cost": dict(self.cost),
            "gain": None if self.gain is None else _plain(self.gain), "runs": [_plain(run) for run in self.runs],
        }  # fmt: skip
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)
        write_text(self.file, HEAD + text)

    @classmethod
    def read(cls, file: Path) -> "Tuned":
        """From a tune.yaml, or from the folder that has one; raises UserError for any other file."""
        file = file / FILE if file.is_dir() else file
        values = read_tuned(file)
        try:
            return cls(
                file=file, settings=values["settings"], overrides=values["overrides"], loss=float(values["loss"]),
                plateau=None if values["plateau"] is None else (values["plateau"][0], values["plateau"][1]),
                noise=values["noise"], notes=values["notes"], predicted=values["predicted"], runs=values["runs"],
                cost=values["cost"], gain=values["gain"],
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise UserError(f"{file} is damaged ({type(error).__name__}: {error}); tune again") from error

    def lines(self) -> list[str]:
        """For people: the recommendation, how sure it is, its gain and its cost."""
        found = "  ".join(f"{key}={rate(value)}" for key, value in self.settings.items())
        lines = [f"recommended: {found}", f"  validation loss {self.loss:.4f}{_noise(self.noise)}"]
        if self.plateau is not None:
            low, high = self.plateau
            same = f"no other rate that was tried is within noise of {rate(low)}"
            lines.append(f"  {rate(low)} to {rate(high)} are within noise" if low < high else f"  {same}")
        lines += [f"  {note}" for note in self.notes]
        if self.gain is not None:
            lines += [f"  {line}" for line in _gain(self.gain)]
        trained = count(sum(not run["before"] for run in self.runs), "trial")
        cost = f"{self.cost['full_runs']:.2g} full runs in {trained}, {clock(self.cost['seconds'])} of training"
        fresh = 0 if self.gain is None else 2 * len(self.gain["seeds"])
        lines.append(f"  cost: {cost}" + (f"; and {fresh} full runs on fresh seeds" if fresh else ""))
        return [*lines, f"train it: {typed('train')} tuned={shlex.quote(str(self.file))}", f"      or: {self.command}"]


def rate(value: Any) -> str:
    """A number as people write rates: 1.6e-3; anything else as the command line has it."""
    from loralab.config.overrides import to_override

    if not isinstance(value, float) or value == 0 or 0.01 <= abs(value) < 10_000:
        return to_override(value)
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _gain(gain: Mapping[str, Any]) -> list[str]:
    lines = [f"against the default, on {count(len(gain['seeds']), 'fresh seed')} (difference, 95% interval):"]
    for name, values in gain["scores"].items():
        found, default = ("diverged" if v is None else f"{v:.4f}" for v in (values["recommended"], values["default"]))
        difference = "" if values["difference"] is None else f": {values['difference']:+.4f}"
        interval = "" if values["low"] is None else f" [{values['low']:+.4f}, {values['high']:+.4f}]"
        lines.append(f"  {name}: {found} against {default}{difference}{interval}")
    return lines


def _noise(noise: float | None) -> str:
    return "" if noise is None else f"; seeds differ by {noise:.4f} (standard deviation)"


def _plain(value: Any) -> Any:
    """Tuples as lists and numpy's numbers as Python's, which YAML's safe form has."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value.item() if hasattr(value, "item") else value
