"""One tuning session, from the command's options to tune.yaml: the search, fresh seeds, the figure."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from loralab.config.compose import Composer
from loralab.config.overrides import name_of, read
from loralab.config.tuned_file import FILE
from loralab.errors import UserError
from loralab.runs.rates import has_factors
from loralab.sweeps.live_folder import About
from loralab.text import count
from loralab.tuning.confirm import confirmed
from loralab.tuning.options import Options
from loralab.tuning.progress import TuneProgress
from loralab.tuning.searches import keys_of, predicted, search_of
from loralab.tuning.seen import Look
from loralab.tuning.session import Launch, Session
from loralab.tuning.tuned import Tuned, rate

__all__ = ["SEEN", "tune"]

SEEN = "seen.json"
"""Beside tune.yaml: the runs that the store had when the session first began."""


def tune(
    composer: Composer,
    arguments: Sequence[str],
    options: Options,
    *,
    launch: Launch,
    at_once: int,
    attach: Callable[[TuneProgress], None],
) -> Tuned:
    """The recommendation, which is in <store>/tune/<name>-<hash>/tune.yaml too, with the figure.

    arguments: the command's overrides; launch: trains jobs, `at_once` of them at a time; attach: has the launcher show
    its runs in the session's display. Raises UserError for a mistake, and RunsFailed where a search cannot go on.
    """
    figure = None if options.figure is None else _checked(Path(options.figure))
    session = Session(composer, arguments, keys_of(options))
    folder = session.folder(options.name, options.asked)
    rates = predicted(options, session)
    search, remembered = search_of(options, session, rates, folder)
    before = session.begin(folder / SEEN)
    heading = _heading(session, options, rates, folder, len(before), at_once)
    drawn = (figure or folder / FILE).with_suffix(".png")
    about = About(folder.name, "tune", heading[0], "", figures=[drawn])
    progress = TuneProgress(heading, options.asked["budget"], lambda: _cost(session, before)["full_runs"], about)
    attach(progress)
    answer = session.search(search, launch, at_once=at_once, ended=progress.trial, remembered=remembered)
    job = session.job(answer.settings)
    gain, notes = None, list(answer.notes)
    if session.planned(answer.settings).directory == session.base.directory:
        notes.append("it is the default")
    elif options.confirm:
        progress.say(f"{count(options.confirm, 'fresh seed')} for the recommendation and the default", progress.err)
        gain = confirmed(session, answer.settings, launch, seeds=options.confirm, first=len(session.asked))
    tuned = Tuned(
        file=folder / FILE,
        settings=dict(answer.settings),
        overrides=[text for text in job if name_of(read(text)) != "store"],
        loss=answer.loss,
        plateau=answer.plateau,
        noise=answer.noise,
        notes=notes,
        predicted=[({} if ratio is None else {"lora.ratio": ratio}) | {"optim.lr": lr} for ratio, lr in rates.items()],
        runs=_runs(session, before),
        cost=_cost(session, before),
        gain=gain,
    )
    tuned.write()
    if "optim.lr" in session.keys:
        from loralab.tuning.figure import draw  # imports matplotlib

        draw(tuned, figure)
    progress.finished()
    return tuned


def _checked(figure: Path) -> Path:
    """The path of a figure that can be written, before anything is trained."""
    try:
        figure.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--to: {figure.parent} cannot be made ({error.strerror}); name another file") from error
    if figure.is_dir() or not os.access(figure.parent, os.W_OK):
        raise UserError(f"--to: {figure} cannot be written; name a file in a folder of yours")
    return figure


def _heading(
    session: Session, options: Options, rates: Mapping[float | None, float], folder: Path, before: int, at_once: int
) -> list[str]:
    config, budget = session.base.config, options.asked["budget"]
    ratio = f" (λ {config.lora.ratio:g})" if has_factors(config) and not options.ratio else ""
    what = (
        f"tuning {config.model.name} on {config.task.called}, {config.method.name}{ratio}, {session.steps} steps a run"
    )
    most = "" if budget is None else f", at most {budget:g} full runs"
    start = f" from optim.lr={rate(next(iter(rates.values())))}" if options.search == "law" else ""
    there = f"; {count(before, 'run')} of the store count{'s' if before == 1 else ''}" if before else ""
    return [what, f"{options.search} search{start}{most}, {at_once} at a time{there}", f"kept in {folder}"]


def _runs(session: Session, before: Mapping[Any, Look]) -> list[dict[str, Any]]:
    """A mapping for each run that was seen, the session's own in their order, then those that were there before."""
    found = []
    for settings in (*session.own, *(each for each in before if each not in session.own)):
        look = session.looks[settings]
        loss = look.observed.curve[-1][1] if look.observed.curve else math.inf
        run = {"run": look.run.rpartition("-")[2], **dict(settings), "until": session.own.get(settings, 1.0)}
        run |= {"status": look.observed.status, "loss": loss if math.isfinite(loss) else None}
        found.append(run | {"share": look.share, "seconds": look.seconds, "before": settings not in session.own})
    return found


def _cost(session: Session, before: Mapping[Any, Look]) -> dict[str, float]:
    """What the session trained beyond what the store had: in full runs, and in seconds of training."""
    runs, seconds = 0.0, 0.0
    for settings in session.own:
        look, old = session.looks[settings], before.get(settings)
        begun = old if old is not None and old.run == look.run else None
        runs += look.share - (begun.share if begun else 0.0)
        seconds += look.seconds - (begun.seconds if begun else 0.0)
    return {"full_runs": round(runs, 3), "seconds": round(seconds, 1)}
