"""The CSV that a study's figure is drawn from: contents, path, writing and reading."""

import functools
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from loralab import places
from loralab.config.overrides import settings
from loralab.errors import UserError
from loralab.files import write_text
from loralab.studies import measured, study_module
from loralab.studies.completeness import plain, refuse_holes
from loralab.studies.measured import measure_study, refuse_settings
from loralab.studies.required_scores import refuse_without_scores
from loralab.studies.study_module import Measurement, find_module, module_of
from loralab.studies.tables import study_tables
from loralab.sweeps.study import Study, open_study

__all__ = ["load_results", "measure", "reduce_study", "save", "state", "target"]

_STEM = re.compile(
    r"[A-Za-z0-9_][\w.-]{0,199}", re.ASCII
)  # file systems allow 255 bytes, and the temporary name is longer
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")  # beginnings of a formula (OWASP), also of one that is inert already
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|-inf", re.ASCII)
_RETURN = "\ue00d\n"  # for a carriage return: csv quotes cells for a line feed alone, and readers end a row at both
TEXTS = ("hash", "commit", "diff", "correct")  # columns that are never numbers, even if they have digits only


def reduce_study(study: Study) -> pd.DataFrame:
    """The frame that a study's figure is drawn from: `reduce` of its analysis, or the runs if it has none.

    `reduce` gets a column for each of the analysis's AXES; an axis that the sweep does not vary is a constant column.
    """
    found, module = study_tables(study), find_module(study)
    if module is None:
        return found.runs
    runs, cells = found.runs.copy(), study.cells()
    for key in module.axes:
        if key not in runs:
            values = [_setting(study.planned(cell.overrides).config, key) for cell in cells]
            runs.insert(list(runs).index("status"), key, values)
        elif any(
            key not in cell.axes for cell in cells
        ):  # such as the one seed of a first stage, if the second stage has more
            own = [settings(cell.overrides) for cell in cells]
            runs[key] = [given.get(key, value) for given, value in zip(own, runs[key], strict=True)]
    refuse_without_scores(study, module, [str(name) for name in runs])
    return module.reduce(found._replace(runs=runs))


def measure(study: Study, overrides: Sequence[str], store: Path) -> pd.DataFrame:
    """Runs the program of a measured study and returns its rows; UserError for a setting that it does not accept."""
    refuse_settings(study.name or "", overrides)
    return measure_study(_measurement(study), smoke=study.smoke, store=store)


def state(name: str, overrides: Sequence[str], store: Path) -> str:
    """One line: whether the CSV of a measured study exists and is complete."""
    refuse_settings(name, overrides)
    path = target(name, overrides, store)
    try:
        return f"{len(load_results(name, *overrides, path=path))} rows in {path}, none missing"
    except UserError as error:
        return str(error)


def _setting(config: Any, key: str) -> Any:
    """The value at a dotted key: the name of a group (task, model), the text of a list or a mapping."""
    return plain(functools.reduce(getattr, key.split("."), config))


def load_results(name: str, *overrides: str, path: Path | None = None) -> pd.DataFrame:
    """A study's CSV, which has one or more rows for each run of its sweep, or for each measured cell.

    Raises UserError, which names the first missing one.

    overrides: those that it was collected with; path: None for analysis/results/<name>.csv. Reads only the CSV and the
    configuration. The frame has the CSV's values: on an axis, a list is its text and null is NaN.
    """
    path = path or target(name, (), Path())
    with open_study(name, overrides) as study:
        if study.spec.program is not None:
            refuse_settings(name, overrides)
            frame = _read(name, path)
            measured.refuse_holes(name, _measurement(study), frame, smoke=study.smoke, path=path)
            return frame
        frame = _numeric_axes(study, _read(" ".join([name, *overrides]), path))
        refuse_holes(study, frame, path)
    return frame


def _read(words: str, path: Path) -> pd.DataFrame:
    """words: the study and its overrides, which make the CSV."""
    try:
        return _texts(pd.read_csv(places.found(path), dtype=dict.fromkeys(TEXTS, str)), _original)
    except FileNotFoundError:
        raise UserError(f"{path} is not there; `loralab study {words}` makes it") from None


def _numeric_axes(study: Study, frame: pd.DataFrame) -> pd.DataFrame:
    """Converts numbers back on axes that mix text and numbers (`${optim.lr}`), where pandas reads numbers as text.

    Axes of text only stay text.
    """
    texts = [name for name in study.axes if name in frame and frame[name].dtype in (object, "str")]
    return frame.assign(**{name: frame[name].map(_number) for name in texts})


def _number(value: Any) -> Any:
    try:
        return float(value)
    except ValueError:
        return value


def _measurement(study: Study) -> Measurement:
    found = module_of(study).measurement
    assert found is not None, "a study with a program"
    return found


def save(frame: pd.DataFrame, to: Path) -> None:
    """Writes the CSV atomically; numbers with ten digits, which seconds since the epoch need, and lists as `plain`."""
    if to.is_dir():
        raise UserError(f"--to: {to} is a directory; name a file")
    several = [name for name in frame if any(isinstance(value, (list, tuple, Mapping)) for value in frame[name])]
    frame = frame.assign(**{str(name): frame[name].map(plain) for name in several})
    frame = frame.infer_objects()  # numbers beside null are objects, which pandas writes as `1.0` instead of `1`
    write_text(to, _texts(frame, _inert).to_csv(index=False, float_format="%.10g").replace(_RETURN, "\r"))


def _texts(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """The frame with `change` applied to its column names and to each cell that is text."""
    texts = [name for name in frame if frame[name].dtype in (object, "str")]
    changed: dict[str, Any] = {
        str(name): frame[name]
        .map(lambda cell: change(cell) if isinstance(cell, str) else cell)
        .astype(frame[name].dtype)
        for name in texts
    }
    return frame.assign(**changed).rename(columns=change)


def _inert(text: str) -> str:
    """The text, after an apostrophe if a spreadsheet would run it as a formula."""
    return (f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text).replace("\r", _RETURN)


def _original(text: str) -> str:
    """The text that `_inert` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def target(name: str, overrides: Sequence[str], store: Path, *, stem: str | None = None) -> Path:
    """analysis/results/<name>.csv for the study as in its file.

    With overrides or a `stem` (--name): <stem>.csv in the store's results/, by default <name>-<hash of the overrides>.
    """
    if stem is None and not overrides:
        return study_module.ANALYSIS / "results" / f"{name}.csv"
    if stem is None:
        stem = f"{name.replace('/', '_')}-{hashlib.sha256(' '.join(overrides).encode()).hexdigest()[:10]}"
    elif not _STEM.fullmatch(stem):
        raise UserError(f"--name: got {stem!r}; it is a file's name without its ending: letters, digits and . _ -")
    return store / "results" / f"{stem}.csv"
