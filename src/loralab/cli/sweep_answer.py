"""What a sweep has found, in lines: its configurations ranked, the best one and the command that trains it."""

import math
import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loralab.cli.run_columns import Column, fitting
from loralab.errors import UserError, explain_os_error
from loralab.runs.differing import SEEDS, label_of, short_names, text_of
from loralab.runs.rows import Row, row_of
from loralab.store.run_directory import FINAL, RunDirectory
from loralab.sweeps.ranking import Configuration, Ranking, rankings
from loralab.sweeps.sweep_file import SweepFile
from loralab.text import align, count, figure, printed, shown

if TYPE_CHECKING:
    from loralab.sweeps.study import Study

__all__ = ["answer", "columns", "conclude", "figure_file", "rows_of_sweep", "store_option"]

MOST = 10  # configurations that are listed when a sweep ends
LONGEST_NUMBER = 8  # characters of a setting in the table
LEAST = 3  # of each task, where there are several


def conclude(sweep: SweepFile, store: Path, study: "Study | None") -> None:
    """Prints the answer when a sweep ends, and draws its figure if there are runs that it does not have.

    study: of sweeps/, whose own figure and verdicts come from `loralab study`; None where that is under way already, or
    for a sweep of the command line. What goes wrong here is a warning: the runs are done.

    Drawing takes 1.2 s of CPU time, a third of it to import matplotlib, and the workers of a sweep that has trained
    took longer to start; a sweep that finds all its runs done draws nothing. The verdicts of a study take 1 to 2 s
    beside collecting its runs, and its child process would repeat them, so their command is named.
    """
    rows = rows_of_sweep(sweep, store)
    if len(rows) < 2 or not any(row.standing.status == "success" for row in rows):
        return
    try:
        found = rankings(rows, metric=sweep.metric, varied=sweep.axes, free=sweep.free)
        width = _width()
        limit, more = max(LEAST, MOST // len(found)), f"; all: `loralab sweep {sweep.id}{store_option(store)}`"
        lines = answer(found, sweep.id, rows, store=store, width=width, limit=limit, more=more)
        print(printed(["", *lines]), flush=True)
        last = None
        if sweep.study is None:
            last = _drawn(found, sweep, store, rows)
        elif study is not None and _is_complete(rows, sweep, study):
            last = f"its figure and its verdicts: {_study_command(study, store)}"
        if last is not None:
            print(printed([last]), flush=True)
    except (UserError, OSError) as error:
        line = explain_os_error(error) if isinstance(error, OSError) else str(error)
        print(f"warning: {shown(line or str(error))}", file=sys.stderr, flush=True)


def rows_of_sweep(sweep: SweepFile, store: Path) -> list[Row]:
    """A row for each run of the first stage, also where it has not begun."""
    return [row_of(RunDirectory(store / "runs" / name)) for name in sweep.runs]


def answer(
    found: Sequence[Ranking],
    name: str,
    rows: Sequence[Row],
    *,
    store: Path,
    width: int | None,
    limit: int | None = None,
    more: str = "",
) -> list[str]:
    """The lines for people. limit: configurations that are listed for each task, None for all; more: how to see all."""
    lines = []
    undone = Counter(row.standing.status for row in rows if row.standing.status not in FINAL)
    if undone:
        what = ", ".join(f"{n} {status}" for status, n in undone.items())
        lines += [f"{undone.total()} of {count(len(rows), 'run')} are not done ({what}); this is what is there"]
    for ranking in found:
        lines += [*([""] if lines else []), *_block(ranking, name, limit, width, store, more)]
    return lines


def _block(ranking: Ranking, name: str, limit: int | None, width: int | None, store: Path, more: str) -> list[str]:
    every = ranking.configurations
    seeds = sorted({len(each.values) for each in every if each.values})
    of = "" if seeds in ([], [1]) else f": mean over {' to '.join(map(str, seeds[:: max(1, len(seeds) - 1)]))} seeds"
    deviation = ", ± standard deviation" if of else ""
    task = f", {ranking.task}" if ranking.task else ""
    head = f"{name}{task}: {count(len(every), 'configuration')}, ranked by {ranking.metric}{of}{deviation}"
    shown_columns, hidden = fitting(columns(ranking, every[:limit]), width)
    cells = zip(*(column.cells for column in shown_columns), strict=True)
    table = align([[column.title for column in shown_columns], *cells], text=0)
    room = [f"no room for {', '.join(hidden)}; --csv and --json have all"] if hidden else []
    rest = [] if limit is None or len(every) <= limit else [f"{limit} of {len(every)} are listed{more}"]
    return [head, *table, *room, *rest, *_best(ranking, store)]


def columns(ranking: Ranking, some: Sequence[Configuration]) -> list[Column]:
    """The settings that differ, the mean, its standard deviation over the seeds, a second score, the number of runs."""

    def setting(key: str, each: Configuration) -> str:
        return _brief(each.settings[key]) if key in each.settings else ""

    titles = short_names(ranking.columns)
    found = [
        Column(key, titles[key], tuple(map(partial(setting, key), some)), rank=1 if key in ranking.axes else 4)
        for key in ranking.columns
    ]
    found.append(Column(ranking.metric, ranking.metric, tuple(_mean(each) for each in some)))
    if any(math.isfinite(each.deviation) for each in some):
        found.append(Column("deviation", "±", tuple(_number(each.deviation) for each in some), rank=2))
    if (second := _second(ranking)) is not None:
        found.append(Column(second, second, tuple(_number(each.mean_of(second)) for each in some), rank=3))
    runs = tuple(f"{len(e.done)}/{len(e.rows)}" if len(e.done) < len(e.rows) else str(len(e.rows)) for e in some)
    return [*found, Column("runs", "runs", runs, rank=5)]


def _brief(value: Any) -> str:
    """The value as it is typed; a number of many digits, as samplers draw them, with four."""
    text = text_of(value)
    return f"{value:.4g}" if isinstance(value, float) and len(text) > LONGEST_NUMBER else text


def _mean(each: Configuration) -> str:
    if any(row.standing.status == "diverged" for row in each.rows):
        return "diverged"
    return _number(each.mean)


def _number(value: float) -> str:
    return figure(value if math.isfinite(value) else None)


def _second(ranking: Ranking) -> str | None:
    """The loss beside another metric, or the primary metric beside the loss, at the same step of the same split."""
    place, _, name = ranking.metric.rpartition("/")
    primary = next((row.facts["metric"] for row in ranking.rows if row.facts.get("metric") is not None), None)
    other = "loss" if name != "loss" else primary
    key = f"{place}/{other}"
    return key if other is not None and any(key in row.scores for row in ranking.rows) else None


def _best(ranking: Ranking, store: Path) -> list[str]:
    """The best configuration, how sure that is, the edges at which it lies, and what trains it."""
    best = ranking.best
    if best is None:
        return ["every configuration has a run that diverged; try smaller learning rates"]
    lines = []
    if ranking.columns:
        lines.append(f"the best: {label_of(best.rows[0], ranking.columns)}")
        if others := ranking.undecided():
            are = "is" if others == 1 else "are"
            lines.append(f"{others} more {are} within the noise of the seeds (2 standard errors)")
        elif all(len(each.values) < 2 for each in ranking.configurations):
            lines.append("one seed each: nothing says how much of the difference is chance")
        lines += [each.advice for each in ranking.edges()]
    if ranking.metric.removeprefix("best/").startswith("test"):
        lines.append("ranked on the test split: a best that is chosen there looks better than it is")
    return [*lines, f"train it: {_command(best, store)}"]


def _command(best: Configuration, store: Path) -> str:
    """The command of its first seed's run, which finds it done."""
    from loralab.config.command import command  # composes with Hydra, which takes half a second
    from loralab.config.stored import stored_config

    first = min(best.done, key=lambda row: [int(row.settings.get(key) or 0) for key in SEEDS])
    place = "" if _is_default(store) else f" store={shlex.quote(str(store))}"
    return command(stored_config(first.run.path / "config.yaml")) + place


def figure_file(store: Path, name: str) -> Path:
    """Where a sweep's figure is, unless --to names a file."""
    return store / "figures" / f"{name}.png"


def _drawn(found: Sequence[Ranking], sweep: SweepFile, store: Path, rows: Sequence[Row]) -> str | None:
    """A line with the figure's path; it is drawn if a run has ended since it was drawn last. None: nothing to draw."""
    file = figure_file(store, sweep.id)
    if not any(ranking.axes for ranking in found):
        return None
    if not file.exists() or file.stat().st_mtime < max(row.when for row in rows):
        from loralab import plotting  # imports matplotlib
        from loralab.inspect.sweep_figure import drawn

        with plotting.style():
            plotting.save(drawn(found), file)
    return f"figure: {file}"


def store_option(store: Path) -> str:
    """` --store DIR`, where it is not the default."""
    return "" if _is_default(store) else f" --store {shlex.quote(str(store))}"


def _is_default(store: Path) -> bool:
    return store.absolute() == Path(os.environ.get("LORALAB_STORE", "outputs")).absolute()


def _is_complete(rows: Sequence[Row], sweep: SweepFile, study: "Study") -> bool:
    """Whether every run of both stages is done, and the study has an analysis."""
    from loralab.places import found
    from loralab.studies.study_module import ANALYSIS, analysis_of

    fresh = [row_of(RunDirectory(study.store / "runs" / name)) for name in sweep.fresh]
    done = all(row.standing.status in FINAL for row in (*rows, *fresh))
    second = bool(fresh) or study.spec.confirm is None
    return done and second and found(ANALYSIS / f"{analysis_of(study)}.py").is_file()


def _study_command(study: "Study", store: Path) -> str:
    own = [text for text in study.arguments if not text.lstrip("+").startswith(("sweeps=", "store=", "tracker.group="))]
    smoke = ["smoke=true"] if study.smoke else []
    return shlex.join(["loralab", "study", str(study.name), *own, *smoke]) + store_option(store)


def _width() -> int | None:
    import shutil

    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
