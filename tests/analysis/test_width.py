"""width: built-in powers of n are found, λ/n collapses where it should, and nothing is claimed from a floor."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from loralab.errors import UserError
from loralab.studies.collapse import powers, residual, separate_residual
from loralab.studies.registered_speed import registered_speedup
from loralab.studies.tables import Tables
from loralab.studies.thinned_curves import SHARES, curve
from loralab.studies.verdicts import CONTRADICTED, HELD, UNKNOWN
from tests.analysis.frames import claims, distinct, drawn, made, module, unlike, verdicts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from loralab.store.run_directory import RunDirectory

WIDTH = module("width")
WIDTHS, RATIOS, FRESH = (384, 768, 1536), (0.25, 1, 4, 16, 64), range(100, 105)
THEORY, CONSTANT = (-1.0, 0.0), (-0.5, -0.5)  # powers of the best lr_A and lr_B; in the second no best λ moves


def world(powers_of_n: tuple[float, float], noise: float = 0.006, head: float = 1.5) -> pd.DataFrame:
    """A bent valley of losses over lr_A and lr_B with its lowest place at λ = 4, which moves with n by these powers.

    A run's speed, and its accuracy, follow from where it lies along the valley.
    """

    def score(run: dict[str, Any]) -> dict[str, Any]:
        text = "" if run["stage"] == "grid" else f"8:{int(256 * unlike(run, 'right')):02x}"
        told = distinct(run) | {"correct": text, "width": 384 * run["model.widen"], "start": 1.8}
        if run["method"] == "head":
            return told | {"validation/loss": head + 0.05 * abs(math.log2(run["optim.lr"] / 6.4e-2))}
        wide, log_lr = math.log2(run["model.widen"]), math.log2(run["optim.lr"] / 3.2e-3)
        u = log_lr - powers_of_n[0] * wide
        v = log_lr + math.log2(run["lora.ratio"] / 4) - powers_of_n[1] * wide
        across, along = u + v, (v - u) / 2
        seed = 0.02 * unlike({"seed": run["seed"]}, "level")
        loss = 0.35 + 0.02 * across**2 + 0.004 * max(across, -2) ** 3 + 0.012 * along**2 + seed
        loss = min(loss + noise * (2 * unlike(run, "noise") - 1), 1.65) if across < 2.5 else 1.65
        half = 0.15 + 0.02 * abs(along) + 0.002 * unlike(run, "speed")
        curves = {f"validation/loss@{share:g}": loss + (1.8 - loss) * 2 ** (-share / half) for share in SHARES}
        losses = {"validation/loss": loss, "test/loss": loss + noise * (2 * unlike(run, "test") - 1)}
        return told | losses | curves | {"test/accuracy": 1 - 0.25 * losses["test/loss"]}

    return made("width", score).sample(frac=1, random_state=0)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return world(THEORY)


@pytest.fixture(scope="module")
def figure(frame: pd.DataFrame) -> Iterator["Figure"]:
    with drawn("width", frame) as found:
        yield found


def fresh(frame: pd.DataFrame, n: int, ratio: float, name: str) -> Any:
    own = frame[(frame["stage"] == "confirm") & (frame["width"] == n) & (frame["lora.ratio"] == ratio)]
    return np.array([own[own["method"] == "lora"].set_index("seed")[name][seed] for seed in FRESH])


def test_each_width_and_ratio_has_five_rates_a_factor_of_two_apart_and_five_fresh_seeds(frame: pd.DataFrame) -> None:
    grid, confirm = (frame[frame["stage"] == stage] for stage in ("grid", "confirm"))
    cells = grid[grid["method"] == "lora"].groupby(["width", "lora.ratio"])
    assert set(cells.groups) == {(n, ratio) for n in WIDTHS for ratio in RATIOS}
    for _, own in cells:
        rates = sorted(set(own["optim.lr"]))
        assert len(rates) == 5 and np.diff(np.log2(rates)) == pytest.approx(np.ones(4), abs=1e-3)
        k = own["model.widen"].iloc[0]
        assert set(own["optim.head_lr"].astype(float)) == {4e-3 / k} and set(own["model.widen_noise"]) == {int(k > 1)}
    assert len(confirm) == (15 + 1) * len(FRESH) and len(grid) == (15 + 1) * 5 * 2


def test_the_theorys_powers_are_found_and_exclude_each_others_and_all_is_claimed(frame: pd.DataFrame) -> None:
    groups = WIDTH.by_width(frame)
    assert tuple(groups) == WIDTHS
    lr_A, lr_B = powers(WIDTH.rate_cells(groups), (0.0, -1.0))
    assert lr_A.estimate == pytest.approx(-1, abs=0.15) and lr_A.low <= -1 <= lr_A.high < -0.5
    assert lr_B.estimate == pytest.approx(0, abs=0.15) and -0.5 < lr_B.low <= 0 <= lr_B.high
    _, best = powers(WIDTH.rate_cells(groups, ratio=True), (0.0, 0.0))
    assert best.low <= 1 <= best.high and best.low > 0.5
    assert verdicts("width", frame) == [HELD] * 4


def test_where_the_best_ratio_is_constant_in_n_the_theorem_does_not_hold_and_lambda_over_n_does_not_collapse() -> None:
    frame = world(CONSTANT)
    groups = WIDTH.by_width(frame)
    assert verdicts("width", frame)[1:3] == [CONTRADICTED] * 2  # lr_A as n^-1/2 is as far from 0 as from -1
    cells = WIDTH.score_cells(groups, WIDTH.fresh("test/loss"))
    assert residual(cells, [1.0]) > 3 * separate_residual(cells, 2) > residual(cells, [0.0])
    theirs = WIDTH.score_cells(WIDTH.by_width(world(THEORY)), WIDTH.fresh("test/loss"))
    assert residual(theirs, [1.0]) < 2 * separate_residual(theirs, 2) < 0.3 * residual(theirs, [0.0])


def test_rates_that_do_not_move_contradict_the_theorem() -> None:
    found = verdicts("width", world((0.0, 0.0)))
    assert found[0] == CONTRADICTED and found[2] in (CONTRADICTED, UNKNOWN)


def test_noise_alone_tells_nothing() -> None:
    def score(run: dict[str, Any]) -> dict[str, Any]:
        lower = 0.0 if run["method"] == "lora" else 2.0
        found = distinct(run) | {"width": 384 * run["model.widen"], "start": 1.8, "correct": ""}
        return found | {"validation/loss": found["validation/loss"] + lower}

    assert HELD not in verdicts("width", made("width", score))


def best(rows: pd.DataFrame) -> float:
    """The lowest mean loss of a rate and a ratio over the seeds."""
    return float(rows.groupby(["lora.ratio", "optim.lr"])["validation/loss"].mean().min())


def test_nothing_is_claimed_where_lora_does_not_halve_the_heads_loss(frame: pd.DataFrame) -> None:
    alone, ours = WIDTH.gate(frame)
    grid = frame[frame["stage"] == "grid"]
    assert alone == best(grid[grid["method"] == "head"])
    narrow = grid[(grid["method"] == "lora") & (grid["width"] == 384)]
    assert ours == best(narrow) and WIDTH.adapts(frame)
    floor = world(THEORY, head=0.6)
    assert not WIDTH.adapts(floor) and WIDTH.questions(floor) == [] and "nothing follows" in WIDTH.caption(floor)
    no_head = frame[frame["method"] == "lora"]
    assert not WIDTH.adapts(no_head) and WIDTH.questions(no_head) == []


def test_gains_are_paired_by_fresh_seed_and_compared_between_the_widths(frame: pd.DataFrame) -> None:
    found = WIDTH.gains(WIDTH.by_width(frame))
    assert tuple(found) == WIDTHS
    for n, gain in found.items():
        pair = [fresh(frame, n, ratio, "test/accuracy") for ratio in (16, 1)]
        assert gain.estimate == pytest.approx((pair[0] - pair[1]).mean())
        ends = stats.ttest_rel(*pair).confidence_interval()
        assert (gain.low, gain.high) == pytest.approx((ends.low, ends.high))
    claim = claims("width", frame)[-1]
    assert claim.arm == "n = 1,536 over n = 384"
    for gained, name in ((claim.found, "test/accuracy"), (claim.loss, "test/loss")):
        less, more = (fresh(frame, n, 16, name) - fresh(frame, n, 1, name) for n in (384, 1536))
        assert gained is not None and gained.p == pytest.approx(stats.ttest_rel(more, less).pvalue)
        assert gained.estimate == pytest.approx((more - less).mean())


def test_what_the_one_curve_says_of_a_width_is_what_was_measured_there_and_is_unknown_beyond_the_curve(
    frame: pd.DataFrame,
) -> None:
    groups = WIDTH.by_width(frame)
    for n, gain in WIDTH.gains(groups).items():
        said = WIDTH.expected(WIDTH.one_curve(groups), n)
        assert said.estimate == pytest.approx(gain.estimate, abs=0.005) and said.low < said.estimate < said.high
    far = WIDTH.expected(WIDTH.one_curve(groups, "test/loss"), 4096)  # λ / n from 1/10.7 to 1.5 of MiniLM's
    along = [math.log2(ratio / 4 / (4096 / 384)) for ratio in (16, 1)]
    assert far.low < 0.003 * (along[0] ** 2 - along[1] ** 2) < far.high
    assert math.isnan(WIDTH.expected(WIDTH.one_curve(groups), 10_000).estimate)


def test_a_speed_is_registered_in_validation_loss_and_paired_by_seed(frame: pd.DataFrame) -> None:
    rows = WIDTH.by_width(frame)[1536]
    confirm = rows[rows["stage"] == "confirm"].sort_values("seed")
    base, own = ([curve(row) for _, row in confirm[confirm["lora.ratio"] == ratio].iterrows()] for ratio in (1, 16))
    found = WIDTH.speed(rows, 16)
    assert found == registered_speedup(base, own, start=1.8) and found.low > 1
    assert WIDTH.speed(rows, 1).estimate == 1


def test_the_figure_has_a_line_for_each_width_and_the_one_curve_through_the_collapsed(figure: "Figure") -> None:
    axes: Any = figure.axes
    accuracy, speed, rates, accuracy_carried, speed_carried, gain = axes
    assert [len(ax.containers) for ax in (accuracy, speed)] == [3, 3] and len(rates.containers) == 2
    for ax in (accuracy_carried, speed_carried):
        one, *cells = ax.lines
        assert (
            len(one.get_xdata()) == 100
            and [len(line.get_xdata()) for line in cells if line.get_marker() == "o"] == [5] * 3
        )
        assert "off a curve of λ/n " in ax.get_title(loc="left")
    texts = [text.get_text() for text in gain.get_legend().get_texts()]
    assert texts == ["one curve of λ/n", "measured", "it at 4,096, not measured"] and {384, 4096} <= set(
        gain.get_xticks()
    )


def test_a_diverged_fresh_run_leaves_its_arm_unknown_and_the_figure_whole(frame: pd.DataFrame) -> None:
    gone = (frame["stage"] == "confirm") & (frame["width"] == 1536) & (frame["lora.ratio"] == 16)
    gone &= frame["seed"] == 102
    names = [
        "test/loss",
        "test/accuracy",
        "validation/loss",
        "correct",
        *(f"validation/loss@{share:g}" for share in SHARES),
    ]
    spoilt = frame.assign(
        status=frame["status"].mask(gone, "diverged"), **{name: frame[name].mask(gone) for name in names}
    )
    found = claims("width", spoilt)
    assert [math.isnan(claim.found.p) for claim in found] == [False] * 3 + [True]
    assert math.isnan(WIDTH.speed(WIDTH.by_width(spoilt)[1536], 16).estimate)
    with drawn("width", spoilt):
        pass


def test_the_summary_has_a_row_an_arm_and_says_which_window_is_too_narrow(frame: pd.DataFrame) -> None:
    table = WIDTH.summary(frame).set_index(["width", "ratio"])
    assert set(table.index) == {(n, ratio) for n in WIDTHS for ratio in RATIOS}
    rates = frame[(frame["stage"] == "grid") & (frame["width"] == 768) & (frame["lora.ratio"] == 4)]
    best = rates.set_index("optim.lr")["validation/loss"].idxmin()
    assert table.loc[(768, 4), "interior"] and table.loc[(768, 4), "lr_A"] == best
    narrow = frame.drop(rates[rates["optim.lr"] > best].index)
    assert not WIDTH.summary(narrow).set_index(["width", "ratio"]).loc[(768, 4), "interior"]


def test_two_tasks_are_refused_and_named(frame: pd.DataFrame) -> None:
    both = pd.concat([frame, frame.assign(task="rotten_tomatoes")])
    with pytest.raises(UserError, match=r"task: got trec, rotten_tomatoes; one figure .* so name one \(task=...\)"):
        WIDTH.by_width(both)


def test_what_is_kept_has_the_backbones_width_and_the_loss_before_the_first_step(finished: "RunDirectory") -> None:
    name = finished.path.name
    rows = pd.DataFrame({"run": [name], "stage": ["grid"]}).reindex(columns=["run", *WIDTH.KEPT])
    logged = [
        {"run": name, "split": split, "name": "loss", "step": step, "value": step + 0.5}
        for split in ("train", "validation")
        for step in (6, 0, 12)
    ]
    kept = WIDTH.reduce(Tables(rows, pd.DataFrame(logged), finished.path.parents[1]))
    assert kept[["width", "start"]].to_numpy().tolist() == [[64, 0.5]]
