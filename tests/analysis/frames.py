"""Synthetic results of the real studies: the CSV of a study whose runs have the scores that a function returns."""

import contextlib
import hashlib
import io
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.config.overrides import settings
from loralab.config.schema import from_hydra
from loralab.studies import committed, completeness, results, study_module
from loralab.studies.questions import Claim
from loralab.studies.thinned_curves import curve_columns
from loralab.studies.verdicts import Verdict
from loralab.sweeps.study import Job, open_study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Scores = Callable[[dict[str, Any]], dict[str, Any] | list[dict[str, Any]]]
"""A run's settings (its axes and stage) -> its columns, or several rows of them; `status` is success if not given."""


def module(name: str) -> ModuleType:
    """The module of a study's analysis."""
    with open_study(name) as study:
        found = study_module.import_analysis(study_module.analysis_of(study))
    assert found is not None, f"{name} has no analysis"
    return found


def made(name: str, scores: Scores, *overrides: str) -> pd.DataFrame:
    """The frame of a study as read from its CSV; the study selects its second stage from the first."""
    analysis = module(name)
    with open_study(name, overrides) as study:
        config = from_hydra(study.composer.settings(study.grid[0]))
        axes = list(dict.fromkeys([*getattr(analysis, "AXES", ()), *study.axes]))
        same = {key: results._setting(config, key) for key in axes if key not in study.axes}

        def rows(jobs: Sequence[Job], stage: str) -> pd.DataFrame:
            found = []
            for job in jobs:
                values = same | settings(job)
                run = {key: completeness.plain(values.get(key, float("nan"))) for key in axes} | {"stage": stage}
                code = {"hash": f"{zlib.crc32(' '.join(job).encode()):010x}", "commit": "c" * 40, "diff": None}
                several = scores(run)
                rows_of = several if isinstance(several, list) else [several]
                found += [{"status": "success", "seconds": 1.0, **code, **run, **row} for row in rows_of]
            return pd.DataFrame(found)

        first = rows(study.grid, "grid")
        names = ["stage", *(axis for axis in study.axes if axis in first)]
        table = first[[*names, *(column for column in first if column not in names and column not in same)]]
        second = study.second_jobs(completeness.as_swept(study, table)) if study.spec.confirm is not None else []
    whole = pd.concat([first, rows(second, "confirm")]) if second else first
    runs = ["hash", "stage", *axes, "status"]
    every = [*runs, *(name for name in whole if name not in runs)]  # saved if an analysis has no `reduce`
    more = [*(["correct"] if "correct" in whole else []), *curve_columns(whole)]
    kept = [*analysis.KEPT, *more] if hasattr(analysis, "KEPT") else every
    text = whole.reindex(columns=kept).to_csv(index=False, float_format="%.10g")
    return pd.read_csv(io.StringIO(text), dtype=dict.fromkeys(results.TEXTS, str))


def claims(name: str, frame: pd.DataFrame) -> list[Claim]:
    """The claims of a study's questions on a frame."""
    return [claim for question in committed.questions(name, frame) for claim in question.claims]


def verdicts(name: str, frame: pd.DataFrame) -> list[Verdict]:
    """The verdicts on them."""
    return [verdict for question in committed.questions(name, frame) for verdict in question.verdicts]


def unlike(run: dict[str, Any], name: str) -> float:
    """A number from 0 to 1 that is unique to a run and a name."""
    text = f"{name} {json.dumps(run, sort_keys=True, default=str)}"
    return int(hashlib.sha256(text.encode()).hexdigest()[:13], 16) / 16**13


def distinct(run: dict[str, Any]) -> dict[str, Any]:
    """A unique score for each run and metric: accuracies from .4 to .9, losses from .3 to .8."""
    splits = ("train", "validation", "test")
    losses = {f"{split}/loss": 0.3 + unlike(run, f"{split}/loss") / 2 for split in splits}
    return losses | {f"{split}/accuracy": 0.4 + unlike(run, f"{split}/accuracy") / 2 for split in splits}


@contextlib.contextmanager
def drawn(name: str, frame: pd.DataFrame) -> Iterator["Figure"]:
    """The study's figure from a frame, whose text is legible at the size shown; closed afterwards."""
    from matplotlib import pyplot
    from matplotlib.text import Text

    with plotting.style():
        figure = module(name).draw(frame)
        texts: list[Any] = [text for text in figure.findobj(Text) if text.get_text().strip()]
        assert texts and min(text.get_size() for text in texts) >= plotting.SIZE
        yield figure
        pyplot.close(figure)


def marks(ax: Any, *, across: bool = False) -> list[tuple[str, list[float], list[float], list[list[float]]]]:
    """A panel's errorbars: label, places, values and the ends of the bars; across: the places are on the y axis."""
    found = []
    for bars in ax.containers:
        x, y = (np.asarray(each, dtype=float).tolist() for each in bars.lines[0].get_data())
        segments = [np.reshape(each, (-1, 2)) for each in bars.lines[2][0].get_segments()]  # empty where unknown
        ends = [segment[:, 0 if across else 1].tolist() for segment in segments]
        found.append((bars.get_label(), *((y, x) if across else (x, y)), ends))
    return found
