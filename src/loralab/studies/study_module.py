"""The protocol of analysis/<study>.py: what it may define, the defaults, and the checks.

It must define `draw(frame)`, which makes the figure. The rest has defaults:

    AXES                  keys that get a column in the CSV even if the sweep does not vary them; none
    reduce(tables)        the CSV's rows, from the Tables of the runs; one row per run
    caption(frame)        the text beside the figure; setting, seeds and code, from the columns that exist
    summary(frame)        the report's table; the mean scores of each setting
    row_keys(frame)       the columns of that table by which each run belongs to one of its rows, where their names or
                          texts are no settings': a frame with the index of `frame`; none
    questions(frame)      what it asks of papers: their claims, with the numbers that test them; none

A study that is measured, not trained (`program:` in its sweep) must define KEYS, KEPT, wanted(smoke) and
measure(smoke) in place of `reduce`.
"""

import importlib.util
import inspect
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pandas as pd

from loralab import places
from loralab.config.keys import no_such_key, type_of
from loralab.config.schema import Config
from loralab.entries import typed
from loralab.errors import UserError
from loralab.studies.captions import caption
from loralab.studies.questions import Question
from loralab.studies.stats import whole_mean
from loralab.studies.tables import Tables
from loralab.studies.thinned_curves import is_curve
from loralab.sweeps.study import Study, open_study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "ANALYSIS",
    "NO_ANALYSIS",
    "Measurement",
    "StudyModule",
    "analysis_of",
    "explain_failure",
    "find_module",
    "import_analysis",
    "load_module",
    "module_of",
]

ANALYSIS = places.HERE / "analysis"
"""The analyses of the current folder, where results and figures are written; the others come with loralab."""
NO_ANALYSIS = "none"  # `analysis: none` in a sweep: only the CSV is wanted
ORIGIN = ("hash", "commit", "diff")
SPLITS = ("train/", "validation/", "test/")


@dataclass(frozen=True)
class Measurement:
    """The measurement of a study that is not trained.

    keys: the columns that identify a row; kept: all columns, commit and diff last; wanted(smoke): the keys of every
    row that the CSV must contain; measure(smoke): the rows without commit and diff.
    """

    file: str
    keys: tuple[str, ...]
    kept: tuple[str, ...]
    wanted: Callable[[bool], pd.DataFrame]
    measure: Callable[[bool], pd.DataFrame]


@dataclass(frozen=True)
class StudyModule:
    """A study's analysis, checked, with defaults for what it does not define.

    scores: the columns of scores in its SCORES, else in its KEPT, which its runs must have.
    """

    axes: tuple[str, ...]
    reduce: Callable[[Tables], pd.DataFrame]
    draw: "Callable[[pd.DataFrame], Figure]"
    caption: Callable[[pd.DataFrame], str]
    summary: Callable[[pd.DataFrame], pd.DataFrame]
    row_keys: Callable[[pd.DataFrame], pd.DataFrame] | None
    questions: Callable[[pd.DataFrame], list[Question]]
    measurement: Measurement | None
    scores: tuple[str, ...] = ()


def load_module(name: str) -> StudyModule:
    """The analysis of the study sweeps/<name>.yaml; UserError if it has none, or an invalid one."""
    with open_study(name) as study:
        return module_of(study)


def module_of(study: Study) -> StudyModule:
    """The analysis of an opened study; UserError if it has none, or an invalid one."""
    found, name = find_module(study), analysis_of(study)
    if found is not None:
        return found
    if name == NO_ANALYSIS:
        raise UserError(f"study {study.name!r} has no figure: sweeps/{study.name}.yaml says `analysis: {NO_ANALYSIS}`")
    if study.spec.program is not None:
        raise UserError(
            f"hydra.sweeper.study.program: {study.spec.program} is not there; it is analysis/{study.name}.py"
        )
    raise UserError(
        f"study {study.name!r} has no analysis/{name}.py, which draws its figure; it defines draw(frame). Without a "
        f"figure, `{typed('train')} sweeps={study.name}` trains it and `loralab collect {study.name}` writes its CSV"
    )


def find_module(study: Study) -> StudyModule | None:
    """The analysis of an opened study, or None; UserError for an invalid one."""
    name = analysis_of(study)
    module = import_analysis(name)
    if module is None:
        return None
    file = f"analysis/{name}.py"
    draw = _function(module, file, "draw", "frame")
    if draw is None:
        raise UserError(f"{file}: defines no draw(frame), which returns the figure")
    return StudyModule(
        axes=_axes(module, file),
        reduce=_function(module, file, "reduce", "tables") or _runs,
        draw=draw,
        caption=_function(module, file, "caption", "frame") or caption,
        summary=_function(module, file, "summary", "frame") or _summary,
        row_keys=_function(module, file, "row_keys", "frame"),
        questions=_function(module, file, "questions", "frame") or _none,
        measurement=None if study.spec.program is None else _measurement(module, file),
        scores=_scores(module),
    )


def analysis_of(study: Study) -> str:
    """The name of a study's analysis: its own name, or X of `analysis: X` or `program: analysis/X.py` in its file."""
    if study.spec.program is not None:
        return Path(study.spec.program).stem
    return study.spec.study.get("analysis", study.name or "")  # a sweep defined on the command line has none


def import_analysis(name: str) -> ModuleType | None:
    """The module analysis/<name>.py, unchecked; None if there is no such file; UserError if it cannot be imported."""
    path = places.found(ANALYSIS / f"{name}.py")
    if not path.is_file():
        return None
    spec = importlib.util.spec_from_file_location(f"analysis_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UserError(f"analysis/{name}.py, line {error.lineno}: {error.msg}") from error
    except Exception as error:
        raise UserError(f"analysis/{name}.py cannot be imported: {explain_failure(error)}") from error
    return module


def explain_failure(error: Exception) -> str:
    """One line for an exception: a UserError's text, else type, text and the analysis's line that raised it."""
    if isinstance(error, UserError):
        return str(error)
    text = " ".join(str(error).split())
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    folders = (ANALYSIS, places.OURS / "analysis")
    inside = [each for each in frames if any(map(Path(each.filename).is_relative_to, folders))]
    return f"{said} (analysis/{Path(inside[-1].filename).name}, line {inside[-1].lineno})" if inside else said


def _function(module: ModuleType, file: str, name: str, argument: str) -> Callable[[Any], Any] | None:
    """The module's function of this name, which must take one argument; None if there is none."""
    found: Any = getattr(module, name, None)
    if found is None:
        return None
    if not callable(found):
        raise UserError(f"{file}: {name} is {found!r}; it must be a function {name}({argument})")
    try:
        inspect.signature(found).bind(None)
    except TypeError:
        raise UserError(
            f"{file}: {name}{inspect.signature(found)} must take one argument: {name}({argument})"
        ) from None
    function: Callable[[Any], Any] = found
    return function


def _axes(module: ModuleType, file: str) -> tuple[str, ...]:
    found = _names(module, file, "AXES", "keys of the configuration, as lora.rank")
    for key in found or ():
        if type_of(key, Config) is None:
            raise UserError(f"{file}: AXES: {no_such_key(key, Config)}")
    return found or ()


def _scores(module: ModuleType) -> tuple[str, ...]:
    names = [getattr(module, name, None) for name in ("SCORES", "KEPT")]
    needed = next((found for found in names if isinstance(found, (list, tuple))), ())
    return tuple(name for name in needed if isinstance(name, str) and name.startswith(SPLITS))


def _measurement(module: ModuleType, file: str) -> Measurement:
    keys, kept = (_names(module, file, name, "columns of its CSV") for name in ("KEYS", "KEPT"))
    wanted, measure = (_function(module, file, name, "smoke") for name in ("wanted", "measure"))
    if keys is None or kept is None or wanted is None or measure is None:
        parts = {"KEYS": keys, "KEPT": kept, "wanted(smoke)": wanted, "measure(smoke)": measure}
        missing = ", ".join(name for name, part in parts.items() if part is None)
        raise UserError(f"{file}: lacks {missing}; a measured study must define {', '.join(parts)} and draw(frame)")
    if kept[-2:] != ("commit", "diff") or not set(keys) <= set(kept):
        raise UserError(f"{file}: KEPT: got {', '.join(kept)}; it must contain all of KEYS and end with commit, diff")
    return Measurement(file, keys, kept, wanted, measure)


def _names(module: ModuleType, file: str, name: str, of: str) -> tuple[str, ...] | None:
    found: Any = getattr(module, name, None)
    if found is None:
        return None
    if not isinstance(found, (list, tuple)) or not all(isinstance(each, str) for each in found):
        raise UserError(f"{file}: {name} is {found!r}; it must be a list of {of}")
    return tuple(found)


def _runs(tables: Tables) -> pd.DataFrame:
    """One row per run, with all columns."""
    return tables.runs


def _none(_: pd.DataFrame) -> list[Any]:
    return []


def _summary(frame: pd.DataFrame) -> pd.DataFrame:
    """For each setting that varies (not the seed), the number of runs and the mean scores, empty if a run has no score.

    A frame without scores, or without the columns of runs, is returned without hash, commit and diff.
    """
    columns = [str(name) for name in frame]
    scores = [name for name in columns if name.startswith(SPLITS) and not is_curve(name)]
    if not scores or "stage" not in columns or "status" not in columns:
        return frame.drop(columns=[name for name in ORIGIN if name in columns])
    axes = columns[columns.index("stage") : columns.index("status")]
    varying = [name for name in axes if not name.endswith("seed") and frame[name].nunique(dropna=False) > 1]
    groups = frame.groupby(varying or ["stage"], sort=False, dropna=False)
    means = groups[scores].agg(whole_mean)
    means.insert(0, "runs", groups.size())
    return means.round(4)
