"""Laws of the search, played on synthetic curves with the curvatures, the noise and the collapse measured on MiniLM."""

import math
from collections.abc import Callable, Iterator
from itertools import count

import numpy as np
import pytest

from loralab.errors import UserError
from loralab.tuning.law_search import LawSearch
from loralab.tuning.trial import Answer, Observed, Seen, Settings, Trial, settings_of

LAW, RATIO, BEST = 2.95e-3, 4.0, 0.37
TOP = 1.66  # the loss of the labels' frequencies
World = Callable[[Settings, float], Observed]


def world(curvature: float, best: float = LAW, noise: float = 0.013, early: float = 0.0) -> World:
    """Runs whose final loss is a parabola in log2 lr, steeper from .75 doublings above, collapsed two doublings up.

    Early the best rate is higher: by .2 doublings for each tenth before 40% as on TREC at 100 steps, and by `early`
    doublings before the last 30% as at 800 steps.
    """

    def train(run: Settings, until: float) -> Observed:
        values = dict(run)
        doublings = math.log2(values["optim.lr"] * math.sqrt(values["lora.ratio"] / RATIO) / best)
        rng = np.random.default_rng([values["seed"], round(1e7 * values["optim.lr"])])
        residual = noise * rng.standard_normal()
        curve = []
        for share in np.arange(1, round(10 * until) + 1) / 10:
            d = doublings - max(0.0, 2 * (0.4 - share)) - (early if share < 0.7 else 0.0)
            final = BEST + _rise(curvature, d) + residual
            loss = (
                TOP - (TOP - min(final, TOP)) * min(1.0, share / 0.6) if doublings < 2 else TOP + 0.1 * (share <= 0.1)
            )
            curve.append((float(share), float(loss)))
        return Observed(run, "success" if until == 1 else "paused", tuple(curve))

    return train


def _rise(curvature: float, doublings: float) -> float:
    """Of the final loss, in nats."""
    return curvature * (doublings**2 + 4 * max(0.0, doublings - 0.75) ** 2)


def play(search: LawSearch, train: World, at_once: int = 2, seen: Seen | None = None) -> dict[Settings, Observed]:
    """Trains what the search asks for until it asks for nothing."""
    runs = dict(seen or {})
    for turn in count():
        trials = search.ask(runs, at_once)
        assert len(trials) <= at_once
        assert turn < 50
        if not trials:
            return runs
        for trial in trials:
            assert trial.settings not in runs or runs[trial.settings].reached < trial.until, "asked for what was seen"
            runs[trial.settings] = train(trial.settings, trial.until)
    raise AssertionError


def _rates(*ratios: float | None) -> dict[float | None, float]:
    """The law's rate at each ratio."""
    return {ratio: LAW * math.sqrt(RATIO / (ratio or RATIO)) for ratio in ratios}


def cost(runs: Seen) -> float:
    return sum(run.reached for run in runs.values())


def rate(answer: Answer) -> float:
    return float(dict(answer.settings)["optim.lr"])


@pytest.mark.parametrize("curvature", [0.02, 0.045])  # nats per squared doubling: Rotten Tomatoes, TREC
@pytest.mark.parametrize("times", [0.25, 0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("known", [True, False])
def test_the_best_rate_is_found_within_noise_at_five_full_runs(curvature: float, times: float, known: bool) -> None:
    search = LawSearch({RATIO: LAW}, known=known)
    runs = play(search, world(curvature, best=LAW / times))
    answer = search.answer(runs)
    doublings = math.log2(rate(answer) * times / LAW)
    assert cost(runs) <= 5 + 1e-9
    assert _rise(curvature, doublings) <= 0.013
    assert answer.loss == pytest.approx(BEST, abs=0.03)


@pytest.mark.parametrize("curvature", [0.02, 0.045])
def test_a_bias_of_early_losses_is_seen_in_the_final_ones(curvature: float) -> None:
    search = LawSearch({RATIO: LAW}, budget=6)
    answer = search.answer(play(search, world(curvature, early=1.0)))
    assert _rise(curvature, math.log2(rate(answer) / LAW)) <= 0.013


@pytest.mark.parametrize("times", [0.25, 1.0, 4.0])
def test_how_many_are_trained_at_once_changes_nothing_but_the_turns(times: float) -> None:
    search, train = LawSearch({RATIO: LAW}), world(0.045, best=LAW / times)
    one, two, many = (play(search, train, at_once) for at_once in (1, 2, 8))
    assert one == two == many


@pytest.mark.parametrize("ratios", [(4.0,), (4.0, 1.0, 16.0)])
def test_the_same_question_has_the_same_answer_at_every_moment(ratios: tuple[float, ...]) -> None:
    """A session that was killed asks for what it had asked for, and no finished trial again."""
    rates = _rates(*ratios)
    train, runs = world(0.045), dict[Settings, Observed]()
    whole = play(LawSearch(rates), train)
    while trials := LawSearch(rates).ask(runs, 2):
        assert LawSearch(rates).ask(dict(reversed(runs.items())), 2) == trials
        runs[trials[0].settings] = train(*_both(trials[0]))  # killed before the second one ended
    assert runs == whole
    assert LawSearch(rates).answer(runs) == LawSearch(rates).answer(whole)


def _both(trial: Trial) -> tuple[Settings, float]:
    return trial.settings, trial.until


def test_the_laws_rate_and_its_half_are_trained_first() -> None:
    first = LawSearch({RATIO: LAW}).ask({}, 2)
    assert [dict(trial.settings)["optim.lr"] for trial in first] == [LAW, pytest.approx(LAW / 2, rel=0.005)]
    assert all(dict(trial.settings) | {"lora.ratio": RATIO, "seed": 0} == dict(trial.settings) for trial in first)


def test_an_unknown_backbone_starts_low_and_climbs() -> None:
    order = [dict(trial.settings)["optim.lr"] for trial in _asked(LawSearch({RATIO: LAW}, known=False), world(0.045))]
    assert order[0] == pytest.approx(LAW / 4, rel=0.005)
    assert max(order) <= 4.1 * LAW


def _asked(search: LawSearch, train: World) -> Iterator[Trial]:
    runs: dict[Settings, Observed] = {}
    while trials := search.ask(runs, 1):
        yield trials[0]
        runs[trials[0].settings] = train(*_both(trials[0]))


def test_a_collapse_is_stopped_at_a_fifth_of_its_steps() -> None:
    search = LawSearch({RATIO: LAW})
    runs = play(search, world(0.045, best=LAW / 2))
    dead = [run for run in runs.values() if run.curve[-1][1] >= TOP]
    assert [run.reached for run in dead] == [0.2]
    assert dead[0].settings in search.answer(runs).stopped


@pytest.mark.parametrize("budget", [1.0, 1.3, 2.0, 2.7, 3.15, 4.0, 7.5])
@pytest.mark.parametrize("times", [0.25, 1.0, 4.0])
def test_every_budget_is_kept_and_gives_an_answer_near_a_finished_run(budget: float, times: float) -> None:
    search = LawSearch({RATIO: LAW}, budget=budget)
    runs = play(search, world(0.045, best=LAW / times))
    assert cost(runs) <= budget + 1e-9
    ended = [float(dict(run.settings)["optim.lr"]) for run in runs.values() if run.reached == 1]
    assert min(abs(math.log2(rate(search.answer(runs)) / lr)) for lr in ended) <= 0.51


def _seedless(run: Settings) -> Settings:
    return tuple(pair for pair in run if pair[0] != "seed")


def test_less_than_one_run_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"budget: got 0\.5, but at least 1 full run"):
        LawSearch({RATIO: LAW}, budget=0.5)


def test_the_last_two_candidates_have_two_seeds_and_the_noise_is_told() -> None:
    search = LawSearch({RATIO: LAW}, budget=7)
    runs = play(search, world(0.045))
    ended = [run.settings for run in runs.values() if run.reached == 1]
    assert len({_seedless(run) for run in ended}) == 2
    assert len(ended) == 4
    noise = search.answer(runs).noise
    assert noise is not None
    assert 0.004 < noise < 0.03


def test_the_plateau_is_the_rates_within_noise() -> None:
    search = LawSearch({RATIO: LAW})
    answer = search.answer(play(search, world(0.045, noise=0.0)))
    assert answer.plateau is not None
    low, high = answer.plateau
    assert LAW / 2 < low < rate(answer) < high < 2 * LAW


def test_finished_runs_of_other_rates_and_seeds_stand_in() -> None:
    train = world(0.045)
    old = {
        run: train(run, 1.0)
        for lr in (7.5e-4, 1.5e-3, 3e-3, 6e-3)
        for seed in (7, 8)
        for run in [settings_of({"lora.ratio": RATIO, "optim.lr": lr, "seed": seed})]
    }
    search = LawSearch({RATIO: LAW})
    runs = play(search, train, seen=old)
    assert cost(runs) - cost(old) <= 2 + 1e-9  # two seeds of the candidate between two of these rates
    assert abs(math.log2(rate(search.answer(runs)) / LAW)) <= 0.5


def test_a_finished_run_without_early_validations_is_trained_again() -> None:
    run = settings_of({"lora.ratio": RATIO, "optim.lr": LAW, "seed": 0})
    for curve in ((), ((1.0, BEST),)):
        late = {run: Observed(run, "success", curve)}
        assert LawSearch({RATIO: LAW}).ask(late, 2) == LawSearch({RATIO: LAW}).ask({}, 2)


def test_runs_of_another_ratio_do_not() -> None:
    run = settings_of({"lora.ratio": 1.0, "optim.lr": LAW, "seed": 0})
    assert LawSearch({RATIO: LAW}).ask({run: world(0.045)(run, 1.0)}, 2) == LawSearch({RATIO: LAW}).ask({}, 2)


def test_further_ratios_are_tried_at_their_own_rates_and_must_win_by_more_than_noise() -> None:
    search = LawSearch(_rates(4.0, 1.0, 16.0), budget=8)
    runs = play(search, world(0.045, noise=0.0))
    tried = {(values["lora.ratio"], values["optim.lr"]) for run in runs for values in [dict(run)]}
    assert {(1.0, 5.9e-3), (16.0, 1.47e-3)} <= tried
    assert dict(search.answer(runs).settings)["lora.ratio"] == RATIO


def test_a_method_without_a_ratio_has_none_in_its_settings() -> None:
    (trial,) = LawSearch({None: LAW}).ask({}, 1)
    assert dict(trial.settings) == {"optim.lr": LAW, "seed": 0}


def test_where_all_rates_diverge_the_search_goes_down_until_its_budget_ends() -> None:
    def diverges(run: Settings, until: float) -> Observed:
        low = dict(run)["optim.lr"] < LAW / 5
        return world(0.045, best=LAW / 16)(run, until) if low else Observed(run, "diverged", ((0.1, math.inf),))

    search = LawSearch({RATIO: LAW})
    assert rate(search.answer(play(search, diverges))) < LAW / 8


@pytest.mark.parametrize("status", ["failed", "diverged"])
def test_where_no_run_ends_the_answer_is_one_line_and_the_search_stops(status: str) -> None:
    search = LawSearch({RATIO: LAW})
    runs = play(search, lambda run, until: Observed(run, status, ()))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=rf"no trial came to its end .*{len(runs)} {status}"):
        search.answer(runs)


def test_a_candidate_that_diverges_late_is_not_recommended() -> None:
    def late(run: Settings, until: float) -> Observed:
        ran = world(0.02)(run, until)
        high = dict(run)["optim.lr"] > LAW / 2.5
        return Observed(run, "diverged", ran.curve) if until == 1 and high else ran

    search = LawSearch({RATIO: LAW}, budget=8)
    assert rate(search.answer(play(search, late))) < LAW / 2.5


def test_a_flat_loss_ends_with_an_answer() -> None:
    search = LawSearch({RATIO: LAW})
    runs = play(search, world(0.0, noise=0.001))
    assert search.answer(runs).loss == pytest.approx(BEST, abs=0.01)


def test_before_the_end_the_answer_says_so() -> None:
    search, train = LawSearch({RATIO: LAW}), world(0.045)
    with pytest.raises(UserError, match="no trial was trained yet"):
        search.answer({})
    whole = play(search, train)
    without = {run: seen for run, seen in whole.items() if dict(run)["seed"] == 0}
    assert "the search has not ended: the same command goes on" in search.answer(without).notes
    assert search.answer(whole).notes[0].endswith(f"times the default rate, {LAW:g}")


def test_an_unknown_backbone_whose_low_rates_diverge_is_searched_lower() -> None:
    def diverges(run: Settings, until: float) -> Observed:
        low = dict(run)["optim.lr"] < LAW / 10
        return world(0.045, best=LAW / 20)(run, until) if low else Observed(run, "diverged", ((0.1, math.inf),))

    search = LawSearch({RATIO: LAW}, known=False)
    runs = play(search, diverges)
    assert max(dict(run)["optim.lr"] for run in runs) < LAW
    assert rate(search.answer(runs)) < LAW / 10
