"""`loralab sweep`: the configurations of a sweep, ranked, and their figure; at any time after it began."""

import argparse
import csv
import io
import json
import math
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from loralab.cli.inspections import drawn
from loralab.cli.run_filters import NoneLeft, chosen
from loralab.cli.sweep_answer import answer, figure_file, rows_of_sweep
from loralab.errors import UserError
from loralab.runs.differing import text_of
from loralab.runs.rows import Row, rows_of
from loralab.sweeps.ranking import Configuration, Ranking, rankings
from loralab.sweeps.sweep_file import find_sweep
from loralab.text import finite, printed

__all__ = ["sweep"]

ALL = "all"


def sweep(given: argparse.Namespace) -> int:
    """Prints the ranking and draws the figure; returns the exit status."""
    name, rows, metric, varied, free = _asked(given)
    try:
        rows = chosen(rows, given.where)
    except NoneLeft as why:
        raise UserError(f"--where: {why}") from why
    if not any(row.standing.status == "success" for row in rows):
        raise UserError(f"sweep: no run of {name} has ended in success yet; `loralab runs` shows how they are")
    found = rankings(rows, metric=_full(given.metric, rows) or metric, varied=varied, free=free)
    if given.json:
        print(json.dumps([_as_json(ranking, name) for ranking in found], indent=2, allow_nan=False))
    elif given.csv:
        print(_as_csv(found), end="")
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print(printed(answer(found, name, rows, store=given.store, width=width, limit=given.limit)), flush=True)
    if not any(ranking.axes for ranking in found) and given.to is None:
        return 0  # they differ in their seeds alone

    def draw() -> Any:
        from loralab.inspect.sweep_figure import drawn as figure

        return figure(found)

    given.json = given.json or given.csv
    return drawn(given, figure_file(given.store, name).stem, draw)


def _asked(given: argparse.Namespace) -> tuple[str, list[Row], str | None, Sequence[str], bool]:
    """The sweep's name, its runs, the score that it selects by, the keys that it varies, and whether each by itself."""
    if given.sweep == ALL:
        return "sweep-all", rows_of(given.store), None, (), False
    found = find_sweep(given.store, given.sweep)
    return found.id, rows_of_sweep(found, given.store), found.metric, found.axes, found.free


def _full(metric: str | None, rows: Sequence[Row]) -> str | None:
    """`validation/loss` for `loss`; raises UserError for a score that no run has."""
    known = dict.fromkeys(key for row in rows for key in row.scores)
    if metric is None or metric in known:
        return metric
    if f"validation/{metric}" in known:
        return f"validation/{metric}"
    import difflib

    near = difflib.get_close_matches(metric, [*known, *(key.rpartition("/")[2] for key in known)], n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UserError(f"--metric: got {metric!r}; the runs have {', '.join(known)}{hint}")


def _as_json(ranking: Ranking, name: str) -> dict[str, Any]:
    return {
        "sweep": name, "task": ranking.task, "metric": ranking.metric, "axes": list(ranking.axes),
        "edges": [{"axis": each.axis, "value": each.value, "largest": each.largest} for each in ranking.edges()],
        "configurations": [_configuration(each) for each in ranking.configurations],
    }  # fmt: skip


def _configuration(each: Configuration) -> dict[str, Any]:
    return {
        "settings": dict(each.settings), "mean": finite(each.mean), "deviation": finite(each.deviation),
        "values": [finite(value) for value in each.values],
        "runs": [{"run": row.run.path.name, "status": row.standing.status} for row in each.rows],
    }  # fmt: skip


def _as_csv(found: Sequence[Ranking]) -> str:
    """A line for each configuration; keys in full, a missing number is empty."""
    keys = list(dict.fromkeys(key for ranking in found for key in ranking.columns))
    tasks = ["task"] if len(found) > 1 else []
    scores = dict.fromkeys(key for ranking in found for row in ranking.rows for key in row.scores)
    stream = io.StringIO()
    lines = csv.writer(stream, lineterminator="\n")
    lines.writerow([*tasks, *keys, "metric", "mean", "deviation", "done", "runs", *scores])
    for ranking in found:
        for each in ranking.configurations:
            cells = {key: text_of(value) for key, value in each.settings.items()}
            numbers = [each.mean, each.deviation, len(each.done), len(each.rows), *map(each.mean_of, scores)]
            own = [ranking.task] if tasks else []
            texts = ["" if math.isnan(number) else repr(number) for number in numbers]
            lines.writerow([*own, *(cells.get(key, "") for key in keys), ranking.metric, *texts])
    return stream.getvalue()
