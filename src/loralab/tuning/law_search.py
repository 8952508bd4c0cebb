"""The learning rate by the law: probes around its rate, a parabola in log lr, the two rates next to its vertex."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from loralab.errors import UserError
from loralab.tuning.early_stopping import collapsed, learned
from loralab.tuning.parabola import Parabola, parabola
from loralab.tuning.recommend import between_seeds, plateau, preferred
from loralab.tuning.replay import Replay, Unmet
from loralab.tuning.trial import Answer, Seen, Settings, Trial, settings_of

__all__ = ["CHECK", "PROBE", "LawSearch"]

CHECK = 0.2
PROBE = 0.5
FURTHEST = 20  # steps from the law's rate: a factor of 1024

Place = tuple[float | None, int]  # λ, step


@dataclass(frozen=True)
class LawSearch:
    """At step k the rate is the law's times 2^(k/2). Steps 0, -2 and 2 are probed, then further ones where needed.

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
        """The candidate nearest to the vertex, or the other one if its final loss is lower by more than its error."""
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
        usable = {run: one for run, one in seen.items() if one.status != "success" or one.curve[0][0] <= CHECK + 1e-9}
        self.replay = Replay(usable, search.budget)
        self.finished = self.by_place(usable)
        self.main = next(iter(search.rates))
        self.probes: dict[int, float] = {}  # step -> loss at PROBE; inf where it was stopped
        self.chosen: list[Place] = []
        self.notes: list[str] = []

    def search(self) -> None:
        self.bracket()
        self.chosen = self.candidates()
        self.finish(self.chosen, self.seeds[:1])
        while self.chosen and not any(map(self.finals, self.chosen)) and min(self.chosen)[1] > -FURTHEST:
            self.chosen = [(self.main, min(step for _, step in self.chosen) - 2)]
            if not self.finish(self.chosen, self.seeds[:1]):
                break
        first = sorted(self.chosen, key=lambda at: self.loss(at, self.seeds[0]))
        self.finish(first[:2], self.seeds[1:])

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
            if losses[-1] > min(losses) or tried[-1] >= FURTHEST:
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
        begun = self.replay.train(list(runs), CHECK)
        lower = {run: [self.replay.of(one) for one in self.replay.asked if _rate(one) < _rate(run)] for run in begun}
        sound = [run for run in begun if not collapsed(self.replay.of(run), lower[run], CHECK)]
        ended = self.replay.train(sound, PROBE)
        self.probes |= dict.fromkeys((runs[run] for run in begun if run not in sound), math.inf)
        self.probes |= {runs[run]: self.replay.loss(run, PROBE) for run in ended}
        return all(step in self.probes for step in steps)

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

    def candidates(self) -> list[Place]:
        """The two steps next to the vertex, the nearer first; and the nearer one at each further λ."""
        best, found = self.best(), self.fit()
        if best is None:
            return []
        nearest = best if found is None else round(found.at)
        other = nearest + 1 if found is not None and found.at > nearest else nearest - 1
        further = [(ratio, nearest) for ratio in self.rates if ratio != self.main]
        return [(self.main, nearest), (self.main, other), *further]

    def finish(self, chosen: Sequence[Place], seeds: Sequence[int]) -> bool:
        """Trains to the end; whether the budget allowed any."""
        return bool(self.replay.train([self.run(at, seed) for seed in seeds for at in chosen], 1.0))

    def loss(self, at: Place, seed: int) -> float:
        """The final loss; inf without one."""
        return self.replay.loss(self.run(at, seed), 1.0)

    def finals(self, at: Place) -> list[float]:
        """The finite final losses of all seeds."""
        return [loss for seed in self.seeds if math.isfinite(loss := self.loss(at, seed))]

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
        return 2 * math.log2(_rate(run) / self.rates[dict(run).get("lora.ratio")])

    def by_place(self, seen: Seen) -> dict[Place, list[Settings]]:
        """The finished runs by the nearest step; of one step, those nearest to it first."""
        known = [run for run in seen if seen[run].status == "success" and dict(run).get("lora.ratio") in self.rates]
        found: dict[Place, list[Settings]] = {}
        for run in sorted(known, key=lambda run: (abs(self.step(run) - round(self.step(run))), run)):
            found.setdefault((dict(run).get("lora.ratio"), round(self.step(run))), []).append(run)
        return found

    def answer(self) -> Answer:
        """The recommendation; raises UserError where no run came to its end."""
        finals = {at: losses for at in self.chosen if (losses := self.finals(at))}
        if not finals:
            raise UserError(self.without_end())
        noise, repeated = between_seeds(list(finals.values()))
        at = preferred(finals, noise)
        loss, run = fmean(finals[at]), self.run(at, self.seeds[0])
        self.notes.insert(0, f"{2 ** (self.step(run) / 2):.2g} times the law's rate, {self.rates[at[0]]:.3g}")
        if not repeated and len(self.seeds) > 1:
            self.notes.append("one seed alone: the budget allowed no second one")
        if not self.learned():
            self.notes.append("no rate learned anything")
        stopped = tuple(one for one in self.replay.asked if self.replay.of(one).status != "success")
        found = settings_of({key: value for key, value in run if key != "seed"})
        within = self.plateau(at, loss, noise)
        return Answer(found, loss, within, noise if repeated else None, stopped, tuple(self.notes))

    def plateau(self, at: Place, loss: float, noise: float) -> tuple[float, float] | None:
        """The rates within noise of the best, below those that collapsed; the recommended rate is one of them."""
        fit = self.fit()
        if fit is None:
            return None
        low, high = plateau(fit, loss, noise)
        collapsed = [step for step, value in self.probes.items() if math.isinf(value) and step > fit.at]
        here = self.step(self.run(at, self.seeds[0]))
        ends = (min(low, here), max(min(high, min(collapsed, default=math.inf) - 1), here))
        lowest, highest = (float(f"{self.rates[at[0]] * 2 ** (end / 2):.2g}") for end in ends)
        return lowest, highest

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


def _rate(run: Settings) -> float:
    return float(dict(run)["optim.lr"])
