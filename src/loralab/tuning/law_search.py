"""The learning rate by the law: probes around its rate, a parabola in log lr, and final losses that settle it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from loralab.errors import UserError
from loralab.tuning.early_stopping import collapsed, learned
from loralab.tuning.parabola import Parabola, parabola
from loralab.tuning.recommend import NOISE, between_seeds, preferred, settled
from loralab.tuning.replay import Replay, Unmet
from loralab.tuning.trial import Answer, Seen, Settings, Trial, settings_of

__all__ = ["CHECK", "PROBE", "LawSearch"]

# Shares of the steps. On 126 curves of TREC (100 steps) the collapsed runs are told apart at .2. At .3, .4 and .5 the
# best rate at λ = 4 is 1.4, 0 and -.3 doublings too high (init B: .8, .4 and 0); at 800 steps it is .8 too high at .5.
# So the probes discard, and final losses choose.
CHECK = 0.2
PROBE = 0.5
CURVATURE = 0.03  # of the loss, per squared step (half a doubling): on TREC, both inits, below the best rate
FURTHEST = 20  # steps from the law's rate: a factor of 1024

Place = tuple[float | None, int]  # λ, step


@dataclass(frozen=True)
class LawSearch:
    """At step k the rate is the law's times 2^(k/2). Steps 0, -2 and 2 are probed, then further ones where needed.

    The step nearest to the vertex of the probes and the one below are run to the end, for early losses are biased to
    high rates; then the step that their final losses tell, and further seeds.

    rates: the law's rate for each λ that is tried (None for a method without λ). The first is searched; each other is
    tried once, at as many steps from its own rate as the best is from its own. seeds: the first is that of all probes.
    budget: in full runs. known: whether the law was measured on this backbone; without that the search starts at a
    quarter of the rate and climbs by doublings until the loss at CHECK turns.

    A finished run of the store stands in for a run of the nearest step, at its own rate, and of a seed that is missing.
    Finished runs that were not validated by CHECK are not used: train such a run again, validating every tenth.
    """

    rates: Mapping[float | None, float]
    seeds: Sequence[int] = (0, 1)
    budget: float = 5.0
    known: bool = True

    def __post_init__(self) -> None:
        if not self.budget >= 1:
            raise UserError(f"budget: got {self.budget:g}, but at least 1 full run is needed to recommend a rate")

    def ask(self, seen: Seen, at_once: int) -> list[Trial]:
        """The next trials: what one pass over `seen` lacks to go on."""
        try:
            _Pass(self, seen).search()
        except Unmet as unmet:
            return unmet.trials[:at_once]
        return []

    def answer(self, seen: Seen) -> Answer:
        """The step nearest to the vertex of the final losses, at the first λ unless another is better beyond noise."""
        one = _Pass(self, seen)
        try:
            one.search()
        except Unmet:
            one.notes.append("the search has not ended: the same command goes on")
        return one.answer()


class _Pass:
    """One pass of a search over what was seen."""

    def __init__(self, search: LawSearch, seen: Seen) -> None:
        self.rates, self.seeds, self.known = search.rates, search.seeds, search.known
        usable = {run: one for run, one in seen.items() if one.status != "success" or math.isfinite(one.loss_at(CHECK))}
        self.replay = Replay(usable, search.budget)
        self.finished = self.by_place(usable)
        self.main, *self.others = search.rates
        self.probes: dict[int, float] = {}  # step -> loss at PROBE; inf where it was stopped
        self.notes: list[str] = []

    def search(self) -> None:
        self.bracket()
        best, first, *further = self.best(), *self.seeds
        if best is None:
            return
        top = 2 * round(self.early(best).at / 2)
        ends = [top, top - 2]
        self.finish([(self.main, step) for step in ends], first)
        while (low := min(ends)) > -FURTHEST and (not self.points() or self.settled().at < low - 0.5):
            ends.append(low - 2)
            if not self.finish([(self.main, low - 2)], first):
                break
        if not self.points():
            return
        found = self.settled()
        step = round(found.at)
        here = (self.main, step)
        if self.others:
            self.finish([(ratio, step) for ratio in self.rates], first)
            losses = {ratio: min((loss for _, loss in self.points(ratio)), default=math.inf) for ratio in self.others}
            rival = (min(losses, key=losses.__getitem__), step)
        else:
            rival = (self.main, min((end for end in ends if end != step), key=lambda end: abs(end - found.at)))
        repeated = [self.run(at, seed) for seed in further for at in (here, rival)]
        self.replay.train([self.run(here, first), *repeated], 1.0)  # at once: none of them decides about another

    def bracket(self) -> None:
        """Probes until the lowest loss has a higher one on each side, or the budget ends."""
        self.probe([0, -2, 2] if self.known else self.climb())
        while (step := self.beyond()) is not None and abs(step) <= FURTHEST:
            if not self.probe([step]):
                self.notes.append("the budget ended before the loss was seen to rise on both sides of the best rate")
                break

    def climb(self) -> list[int]:
        """The two steps to be probed first: the best at CHECK, for early losses favour high rates, and that below."""
        tried = [-4, -2]
        while True:
            runs = [self.run((self.main, step), self.seeds[0]) for step in tried]
            if len(self.replay.train(runs, CHECK)) < len(runs):
                return tried[-3:-1]
            losses = [self.replay.loss(run, CHECK) for run in runs]
            if losses[-1] > min(losses) or math.isinf(losses[-1]) or tried[-1] >= FURTHEST:
                best = tried[losses.index(min(losses))]
                return [best - 2, best]
            tried.append(tried[-1] + 2)

    def beyond(self) -> int | None:
        """The step to be probed next; None once the best is known from both sides."""
        best, low, high = self.best(), min(self.probes, default=0), max(self.probes, default=0)
        if best is None or not self.learned():
            return low - 4
        if self.fit() is not None:
            return None
        return best - 2 if best == low else best + 2 if best == high else None

    def probe(self, steps: Sequence[int]) -> bool:
        """Trains up to CHECK, and up to PROBE those that have not collapsed; whether the budget allowed them all."""
        runs = {self.run((self.main, step), self.seeds[0]): step for step in steps}
        try:
            begun = self.replay.train(list(runs), CHECK)
        except Unmet as unmet:
            raise Unmet([*unmet.trials, *self.beside(list(runs))]) from None
        sound = self.sound(begun)
        ended = self.replay.train(sound, PROBE)
        self.probes |= dict.fromkeys((runs[run] for run in begun if run not in sound), math.inf)
        self.probes |= {runs[run]: self.replay.loss(run, PROBE) for run in ended}
        return all(step in self.probes for step in steps)

    def beside(self, runs: Sequence[Settings]) -> list[Trial]:
        """What can be trained to PROBE already, beside runs that have not come to CHECK: no higher rate stops a run."""
        known = []
        for run in sorted(runs, key=_rate):
            if self.replay.of(run).reached < CHECK - 1e-9:
                break
            known.append(run)
        try:
            self.replay.train(self.sound(known), PROBE)
        except Unmet as unmet:
            return unmet.trials
        return []

    def sound(self, runs: Sequence[Settings]) -> list[Settings]:
        """Those that have not collapsed at CHECK."""
        lower = {run: [self.replay.of(one) for one in self.replay.asked if _rate(one) < _rate(run)] for run in runs}
        return [run for run in runs if not collapsed(self.replay.of(run), lower[run], CHECK)]

    def finite(self) -> list[int]:
        return [step for step in sorted(self.probes) if math.isfinite(self.probes[step])]

    def best(self) -> int | None:
        """The probed step with the lowest loss; of equal ones the lowest."""
        return min(self.finite(), key=self.probes.__getitem__, default=None)

    def learned(self) -> bool:
        """False where no probe learned anything, as far above the best rate."""
        runs = [self.replay.of(self.run((self.main, step), self.seeds[0])) for step in self.finite()]
        return any(learned(run, CHECK, PROBE) for run in runs)

    def fit(self) -> Parabola | None:
        """Through the best probe and its neighbours, in steps; None unless its vertex is among them."""
        steps, best = self.finite(), self.best()
        if best is None or len(steps) < 3:
            return None
        first = min(max(steps.index(best) - 1, 0), len(steps) - 3)
        points = {self.step(self.run((self.main, step), self.seeds[0])): step for step in steps[first : first + 3]}
        found = parabola({at: self.probes[step] for at, step in points.items()}) if len(points) == 3 else None
        return found if found is not None and min(points) <= found.at <= max(points) else None

    def early(self, best: int) -> Parabola:
        """What the probes say of the final losses, which are taken as proportional to theirs.

        The curvature is at most CURVATURE: the probe above the best rate is often near collapse, and the loss below
        the best rate, where the final losses are, is flatter. Where the probes show no vertex it is the best of them.
        """
        found = self.fit() or Parabola(best, math.inf, self.probes[best])
        both = [final / self.probes[step] for step in self.finite() if math.isfinite(final := self.loss(step))]
        scale = fmean(both) if both else 1.0
        lowest = scale * found.lowest
        return Parabola(found.at, min(scale * found.curvature, CURVATURE * max(abs(lowest), NOISE)), lowest)

    def settled(self) -> Parabola:
        """The parabola of the final losses at the first λ; its vertex is kept between what was tried and collapse."""
        best, points = self.best(), self.points()
        assert best is not None  # a run that came to its end was probed
        found = settled(self.early(best), points, self.noise()[0])
        low = min(x for x, _ in points) - 1
        return found._replace(at=min(max(found.at, low), max(self.ceiling(), low)))

    def ceiling(self) -> float:
        """A step below the lowest rate that collapsed, diverged or failed."""
        lost = [step for step, loss in self.probes.items() if math.isinf(loss)]
        lost += [round(self.step(run)) for run in self.ended() if math.isinf(self.replay.loss(run, 1.0))]
        above = [step for step in lost if step > min(x for x, _ in self.points())]
        return min(above, default=math.inf) - 1

    def ended(self, ratio: float | None = None) -> list[Settings]:
        """The runs at a λ, by default the first, that were asked for to the end."""
        wanted = self.main if ratio is None else ratio
        return [run for run, share in self.replay.asked.items() if share == 1 and _ratio(run) == wanted]

    def finish(self, places: Sequence[Place], seed: int) -> bool:
        """Trains to the end; whether the budget allowed any."""
        return bool(self.replay.train([self.run(at, seed) for at in places], 1.0))

    def loss(self, step: int) -> float:
        """The final loss of a probe; inf if it was not run to the end."""
        run = self.run((self.main, step), self.seeds[0])
        return self.replay.loss(run, 1.0) if self.replay.asked.get(run) == 1 else math.inf

    def points(self, ratio: float | None = None) -> list[tuple[float, float]]:
        """(step, final loss) of each run at a λ that came to its end."""
        losses = [(self.step(run), self.replay.loss(run, 1.0)) for run in self.ended(ratio)]
        return [(step, loss) for step, loss in losses if math.isfinite(loss)]

    def noise(self) -> tuple[float, bool]:
        """Standard deviation of a final loss between seeds; whether a seed was repeated."""
        groups: dict[Place, list[float]] = {}
        for ratio in self.rates:
            for step, loss in self.points(ratio):
                groups.setdefault((ratio, round(step)), []).append(loss)
        return between_seeds(list(groups.values()))

    def run(self, at: Place, seed: int) -> Settings:
        """The run of a place and a seed, or the finished run of the store that stands in for it."""
        ratio, step = at
        rate = float(f"{self.rates[ratio] * 2 ** (step / 2):.3g}")
        values = {"optim.lr": rate, "seed": seed} | ({} if ratio is None else {"lora.ratio": ratio})
        exact = settings_of(values)
        if exact in self.replay.seen:
            return exact
        near = [run for run in self.finished.get(at, []) if dict(run)["seed"] == seed]
        others = [run for run in self.finished.get(at, []) if dict(run)["seed"] not in self.seeds]
        place = self.seeds.index(seed)
        return near[0] if near else others[place] if place < len(others) else exact

    def step(self, run: Settings) -> float:
        """The place of a run's rate, in steps from the law's."""
        return 2 * math.log2(_rate(run) / self.rates[_ratio(run)])

    def by_place(self, seen: Seen) -> dict[Place, list[Settings]]:
        """The finished runs by the nearest step; of one step, those nearest to it first."""
        known = [run for run in seen if seen[run].status == "success" and _ratio(run) in self.rates]
        found: dict[Place, list[Settings]] = {}
        for run in sorted(known, key=lambda run: (abs(self.step(run) - round(self.step(run))), run)):
            found.setdefault((_ratio(run), round(self.step(run))), []).append(run)
        return found

    def answer(self) -> Answer:
        """The recommendation; raises UserError where no run came to its end."""
        if not self.points():
            raise UserError(self.without_end())
        (noise, repeated), found = self.noise(), self.settled()
        step = round(found.at)
        finals = {ratio: [loss for _, loss in self.points(ratio)] for ratio in self.rates if self.points(ratio)}
        finals[self.main] = [loss - found.curvature * (x - found.at) ** 2 for x, loss in self.points()]
        ratio = preferred(finals, noise)
        run = self.run((ratio, step), self.seeds[0])
        self.notes.insert(0, f"{2 ** (self.step(run) / 2):.2g} times the default rate, {self.rates[ratio]:.3g}")
        if not repeated and len(self.seeds) > 1:
            self.notes.append("one seed alone: the budget allowed no second one")
        if not self.learned():
            self.notes.append("no rate learned anything")
        half = found.half_width(noise)
        within = found.at - half, min(found.at + half, max(self.ceiling(), found.at))
        low, high = (float(f"{self.rates[ratio] * 2 ** (end / 2):.2g}") for end in within)
        return Answer(
            settings=settings_of({key: value for key, value in run if key != "seed"}),
            loss=fmean(finals[ratio]),
            plateau=None if len(dict(self.points())) < 2 else (min(low, _rate(run)), max(high, _rate(run))),
            noise=noise if repeated else None,
            stopped=tuple(one for one in self.replay.asked if self.replay.of(one).status != "success"),
            notes=tuple(self.notes),
        )

    def without_end(self) -> str:
        """Why nothing can be recommended."""
        runs = [self.replay.of(run) for run in self.replay.asked]
        counts = {status: sum(run.status == status for run in runs) for status in ("failed", "diverged")}
        if not any(run.curve for run in runs) and not any(counts.values()):
            return "no trial was trained yet: there is nothing to recommend"
        counts["stopped early"] = len(runs) - sum(counts.values())
        lowest, highest = min(map(_rate, self.replay.asked)), max(map(_rate, self.replay.asked))
        told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        return f"no trial came to its end at optim.lr = {lowest:g} to {highest:g} ({told}): look at their records"


def _ratio(run: Settings) -> float | None:
    return dict(run).get("lora.ratio")


def _rate(run: Settings) -> float:
    return float(dict(run)["optim.lr"])
