"""A tuning session: asks a search for trials, has them trained, and looks at what they came to, until it has an answer.

Its state is the disk alone: the runs, and the runs that the store had when it first began (seen.json). A session
that was killed asks the same questions again, finds their answers there, and goes on with the first that is missing.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from glob import escape
from pathlib import Path
from typing import Any

from loralab.config.checks import cut
from loralab.config.compose import Composer
from loralab.config.literal import literal
from loralab.config.overrides import name_of, read, to_override
from loralab.config.schema import from_hydra
from loralab.errors import RunsFailed, UserError
from loralab.runs.plan import Plan, make_store, plan
from loralab.runs.rates import has_factors
from loralab.store.run_directory import run_hash
from loralab.tuning.seen import Look, look
from loralab.tuning.stored import fitting, kept
from loralab.tuning.trial import Answer, Observed, Search, Settings, Trial

__all__ = ["Job", "Launch", "Session"]

Job = tuple[str, ...]
Launch = Callable[[Sequence[Job], int], None]
"""(jobs, the number of the first) -> trains them; runs that failed are in the store, or were printed."""

EVERY = 0.1  # of the steps, between two evaluations of a trial, unless the command says otherwise


@dataclass
class Session:
    """One session. arguments: the command's overrides, for every trial; keys: what the search varies beside the seed.

    asked: every trial of this process, in order; own: how far the session asked for each run; looks: what was seen.
    """

    composer: Composer
    arguments: Sequence[str]
    keys: Sequence[str]
    asked: list[Trial] = field(default_factory=list)
    own: dict[Settings, float] = field(default_factory=dict)
    looks: dict[Settings, Look] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for text in self.arguments:
            _check(text, self.keys)

    @cached_property
    def base(self) -> Plan:
        """The run of the command alone, validated as the trials are: what the recommendation is compared to."""
        return self.planned(())

    @cached_property
    def steps(self) -> int:
        """Of every trial."""
        if self.base.steps == 0:
            raise UserError("train.steps: got 0; tuning compares trained models, so give it at least 1")
        return self.base.steps

    @property
    def every(self) -> float:
        """The share of the steps between two validations of a trial."""
        given = from_hydra(self.composer.settings(self.job(()))).train.eval_every
        return 1.0 if given is None else given if given < 1 else given / self.steps

    @property
    def is_measured(self) -> bool:
        """Whether the default rate comes from measurements on the backbone; else it is a guess."""
        return has_factors(self.base.config) and bool(self.base.config.model.rates)

    @property
    def store(self) -> Path:
        return Path(self.base.config.store)

    def folder(self, name: str | None, search: Mapping[str, Any]) -> Path:
        """Where the session keeps what it knows: named by the command and by what is asked of the search."""
        config = self.base.config
        identity = {"run": self.base.identity, "seed": config.seed, "search": search}
        digest, tune = run_hash(identity), self.store / "tune"
        if name is None:
            task = cut(re.sub(r"[^\w.-]", "_", config.task.called))
            first, last = config.model.name.replace("/", "_"), f"{config.method.name}-{digest}"
            there = sorted(tune.glob(f"{escape(first)}-*-{last}"))  # the file, or its title, may have had another name
            return there[0] if there else tune / f"{first}-{task}-{last}"
        return tune / f"{name}-{digest}"

    def job(self, settings: Settings, until: float = 1.0) -> Job:
        """The overrides of a trial's run."""
        own = [f"{key}={to_override(literal(value))}" for key, value in settings]
        names = {key for key, _ in settings}
        shared = [text for text in self.arguments if name_of(read(text)) not in names]
        given = {name_of(read(text)) for text in shared} | names
        if "train.eval_every" not in given:
            shared.append(f"train.eval_every={EVERY:g}")
        if "optim.lr" in names and "optim.head_lr" not in given and self.has_own_head_rate:
            shared.append(f"optim.head_lr={to_override(self.base.config.optim.head_lr)}")
        return (*shared, *own, *([f"train.pause_at={until:g}"] if until < 1 else []))

    @cached_property
    def has_own_head_rate(self) -> bool:
        """Whether the head of the default run has the law's rate for it, which then is that of every trial."""
        optim = self.composer.settings(self.arguments).optim
        return has_factors(self.base.config) and optim.lr == "auto" and optim.head_lr is None

    def planned(self, settings: Settings, further: Mapping[str, Any] | None = None) -> Plan:
        """The run of a trial; further: settings beside its own."""
        more = [f"{key}={to_override(literal(value))}" for key, value in (further or {}).items()]
        return plan(from_hydra(self.composer.settings((*self.job(settings), *more))))

    def look(self, settings: Settings, until: float | None = None) -> Look | None:
        """What a trial's run has come to, as `look` of loralab.tuning.seen gives it."""
        own = self.planned(settings)
        return look(own.directory, settings, steps=own.steps, until=until)  # its own: the search may vary batch_size

    def begin(self, file: Path) -> dict[Settings, Look]:
        """The runs of the store that fit, from `file` if the session began before; call it before `search`."""
        make_store(self.store)
        found = kept(file, lambda: fitting(self.store, self.base, self.keys, steps=self.steps, plan_of=self.planned))
        self.looks = dict(found)
        return found

    def search(
        self,
        search: Search,
        launch: Launch,
        *,
        at_once: int,
        ended: Callable[[Trial, Look, bool], None],
        remembered: Callable[[], Sequence[Settings]] = tuple,
    ) -> Answer:
        """The answer of the search once it asks for no more; RunsFailed is raised where all trials of a launch failed.

        ended: called with each trial, what was seen of it, and whether that was there before; remembered: the trials of
        a search with a memory of its own, which does not ask for them again.
        """
        while trials := search.ask(self._with(remembered()), at_once):
            if again := [trial for trial in trials if trial in self.asked]:
                raise RuntimeError(f"the search asks again for what it has seen: {again[0]}")
            missing = [trial for trial in trials if not self._is_there(trial)]
            if missing:
                launch([self.job(trial.settings, trial.until) for trial in missing], len(self.asked))
            found = [self._ended(trial) for trial in trials]
            self.asked += trials
            self.own |= {each.settings: max(each.until, self.own.get(each.settings, 0.0)) for each in trials}
            for trial, one in zip(trials, found, strict=True):
                ended(trial, one, trial not in missing)
            if all(one.observed.status == "failed" for one in found):
                raise RunsFailed(f"every trial of a launch failed, the last with: {found[-1].error}")
        return search.answer(self._with(remembered()))

    @property
    def seen(self) -> dict[Settings, Observed]:
        return {settings: one.observed for settings, one in self.looks.items()}

    def _with(self, remembered: Sequence[Settings]) -> dict[Settings, Observed]:
        """What was seen, with what the runs of these trials have come to by now."""
        for settings in remembered:
            one = self.looks.get(settings)
            if one is None or one.observed.status == "paused":
                one = self.look(settings)
            if one is not None:
                self.looks[settings] = one
                self.own.setdefault(settings, one.share)
        return self.seen

    def _is_there(self, trial: Trial) -> bool:
        """Whether its run has come so far; one that failed is tried again."""
        one = self.look(trial.settings, trial.until)
        return one is not None and one.observed.status != "failed"

    def _ended(self, trial: Trial) -> Look:
        one = self.look(trial.settings, trial.until)
        if one is None:
            job = " ".join(self.job(trial.settings, trial.until))
            raise RunsFailed(f"{job} was not trained; the same command tries again")
        self.looks[trial.settings] = one
        return one


def _check(text: str, keys: Sequence[str]) -> None:
    """Raises UserError for a setting of the command that a session has no use for."""
    override = read(text)
    name = name_of(override)
    got = f"{name}: got {override.get_value_string()}"
    varied = " and ".join(keys)
    if override.is_sweep_override():
        raise UserError(f"{got}; loralab tune takes one value for each key, and varies {varied} itself")
    if name in keys:
        raise UserError(f"{got}; the search chooses it, so leave it out")
    if name == "train.pause_at":
        raise UserError(f"{got}; the search says where trials pause, so leave it out")
