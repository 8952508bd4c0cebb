"""width: built-in powers of n are found, and gains and speed-ups use fresh seeds."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from loralab.errors import UserError
from loralab.studies.stats import crossing, ratio_interval, speedup
from loralab.studies.tables import Tables
from loralab.studies.verdicts import CONTRADICTED, HELD, UNKNOWN
from tests.analysis.frames import claims, distinct, drawn, made, module, unlike, verdicts

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

WIDTH = module("width")
WIDTHS, RATIOS, FRESH, STEPS = (64, 128, 256, 512), (0.25, 1, 4, 16, 64), range(100, 105), range(0, 101, 10)
ARMS = {(n, ratio) for n in WIDTHS for ratio in (*RATIOS, n / 16)}


def curve(loss: float, half: float) -> str:
    """A curve from .69 toward a loss, halfway after the given number of steps."""
    return " ".join(f"{step}:{loss + (0.69 - loss) * 2 ** (-step / half):.6g}" for step in STEPS)


def growing(power_A: float, power_B: float, noise: float = 2e-3) -> pd.DataFrame:
    """Validation losses form a valley with its minimum at lr_A as n^power_A and lr_B as n^power_B.

    Test losses and accuracies are best at λ = 8 (n / 128)^(power_B - power_A); λ = 16 is twice as fast as λ = 1.
    """

    def score(run: dict[str, Any]) -> dict[str, Any]:
        n, ratio = int(run["model"].partition("_")[2]), run["lora.ratio"]
        wide, fresh = np.log2(n / 128), run["stage"] == "confirm"
        x = np.log2(run["optim.lr"] / 1.6e-3) - power_A * wide
        y = np.log2(run["optim.lr"] * ratio / 1.28e-2) - power_B * wide
        level = unlike({"seed": run["seed"]}, "level") / 50
        loss = 0.45 + level + 0.02 * x * x + 0.01 * y * y + 0.01 * x * y + noise * (unlike(run, "noise") - 0.5)
        away = (np.log2(ratio / 8) - (power_B - power_A) * wide) ** 2
        accuracy = 0.8 - 0.004 * away + level + noise * (unlike(run, "accuracy") - 0.5)
        scores = {
            "validation/loss": min(loss, 0.693),
            "test/loss": 0.5 + 0.004 * away + level,
            "test/accuracy": accuracy,
        }
        told = {"width": n, "pretraining/loss": 6 - 0.2 * np.log2(n)}
        text = curve(0.45, (10 if ratio == 16 else 20) + 8 * (run["seed"] == 101)) if fresh else None
        right = f"8:{int(256 * unlike(run, 'right')):02x}" if fresh else ""
        return distinct(run) | scores | told | {"curve": text, "correct": right}

    return made("width", score).sample(frac=1, random_state=0)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return growing(-1.0, 0.0)


@pytest.fixture(scope="module")
def figure(frame: pd.DataFrame) -> Iterator["Figure"]:
    with drawn("width", frame) as found:
        yield found


def fresh(frame: pd.DataFrame, n: int, ratio: float, name: str = "test/accuracy") -> Any:
    own = frame[(frame["stage"] == "confirm") & (frame["width"] == n) & (frame["lora.ratio"] == ratio)]
    cell = own.set_index("seed")[name]
    return np.array([cell[seed] for seed in FRESH])


def test_the_study_has_six_rates_for_each_width_and_ratio_and_fresh_seeds_with_curves(frame: pd.DataFrame) -> None:
    grid, confirm = (frame[frame["stage"] == stage] for stage in ("grid", "confirm"))
    cells = grid.groupby(["width", "lora.ratio"])
    assert set(cells.groups) == ARMS and len(ARMS) == 22
    for _, own in cells:
        rates = sorted(own["optim.lr"].unique())
        assert len(rates) == 6 and np.diff(np.log2(rates)) == pytest.approx(np.ones(5)) and len(own) == 18
    assert len(confirm) == len(ARMS) * len(FRESH) and confirm["curve"].notna().all()


def test_powers_that_were_built_in_are_found_and_claimed(frame: pd.DataFrame) -> None:
    found = {n: WIDTH.optima(rows) for n, rows in WIDTH.by_width(frame).items()}
    assert tuple(found) == WIDTHS and all(each["lr_A"].interior for each in found.values())
    diagonal = -1 * 0.05 / 0.08  # the part of .04 x + .01 y and .02 y + .01 x along lr_A
    for key, truth in (("lr", diagonal), ("lr_A", -1.0), ("lr_B", 0.0), ("ratio", 1.0)):
        fit = WIDTH.power(found, key)
        x, y = np.log2(WIDTHS), [found[n][key].at for n in WIDTHS]
        line = stats.linregress(x, y)
        assert fit.estimate == pytest.approx(truth, abs=0.08) == pytest.approx(line.slope, abs=0.08)
        assert fit.high - fit.low == pytest.approx(2 * stats.t.ppf(0.975, 2) * line.stderr, abs=1e-6) and fit.n == 4
    assert verdicts("width", frame)[:3] == [HELD] * 3
    assert [claim.found.n for claim in claims("width", frame)] == [4, 4, 4, 4, 5]


def test_rates_that_fall_alike_hold_neither_the_theory_of_the_pair_nor_a_ratio_that_grows() -> None:
    """Both rates of the best pair scale as n^-1: lr_A and lr_B fall, and λ is constant."""
    assert verdicts("width", growing(-1.0, -1.0))[:3] == [HELD, CONTRADICTED, CONTRADICTED]


def test_a_ratio_that_falls_with_the_width_does_not_hold() -> None:
    assert verdicts("width", growing(0.0, -0.8))[:3] == [CONTRADICTED] * 3


def test_noise_alone_tells_nothing() -> None:
    def score(run: dict[str, Any]) -> dict[str, Any]:
        own = {"width": int(run["model"].partition("_")[2]), "curve": curve(0.5, 20), "correct": ""}
        return distinct(run) | own

    assert verdicts("width", made("width", score))[:3] == [UNKNOWN] * 3


def test_an_optimum_outside_what_was_tried_is_in_no_slope_and_drawn_open() -> None:
    frame = growing(-1.0, 2.5)  # the best λ is 90 at n = 256
    found = {n: WIDTH.optima(rows) for n, rows in WIDTH.by_width(frame).items()}
    inside = [n for n in WIDTHS if found[n]["ratio"].interior]
    assert inside == [64, 128] and WIDTH.power(found, "ratio").n == 2
    assert np.isnan(WIDTH.power(found, "ratio").p)
    with drawn("width", frame) as figure:
        lines: Any = figure.axes[2].lines
        faces = {float(line.get_xdata()[0]): line.get_markerfacecolor() for line in lines if len(line.get_xdata()) == 1}
        assert faces[64] != "white" and faces.get(256, "white") == "white"


def test_gains_are_paired_by_seed_and_drawn_in_points(frame: pd.DataFrame, figure: "Figure") -> None:
    ax: Any = figure.axes[3]
    wanted = [dict.fromkeys(WIDTHS, ratio) for ratio in (4, 16, 64)] + [{n: n // 16 for n in WIDTHS}]
    for ratio_at, bars in zip(wanted, ax.containers, strict=True):
        points = bars.lines[0].get_ydata()
        ends = [segment[:, 1] for segment in bars.lines[2][0].get_segments()]
        for (n, ratio), point, end in zip(ratio_at.items(), points, ends, strict=True):
            less = stats.ttest_rel(fresh(frame, n, ratio), fresh(frame, n, 1)).confidence_interval()
            assert point == pytest.approx(100 * (fresh(frame, n, ratio) - fresh(frame, n, 1)).mean())
            assert end == pytest.approx([100 * less.low, 100 * less.high])
    more = [fresh(frame, n, 16) - fresh(frame, n, 1) for n in (512, 64)]
    claim = claims("width", frame)[-1]
    assert claim.found.p == pytest.approx(stats.ttest_rel(*more).pvalue) and claim.arm == "n = 512 over n = 64"


def steps_to(text: str, level: float) -> float:
    steps, losses = zip(*((float(a), float(b)) for a, b in (pair.split(":") for pair in text.split())), strict=True)
    return crossing(steps[1:], -np.array(losses[1:]), -level)


def test_a_speed_is_of_steps_to_a_share_of_the_mean_gain_of_equal_rates(frame: pd.DataFrame) -> None:
    rows = WIDTH.by_width(frame)[256]
    ends = np.array([[float(p.split(":")[1]) for p in text.split()] for text in fresh(frame, 256, 1, "curve")])
    level = 0.05 * ends[:, 0].mean() + 0.95 * ends[:, -1].mean()
    some, other = ([steps_to(text, level) for text in fresh(frame, 256, ratio, "curve")] for ratio in (1, 16))
    assert WIDTH.crossings(rows, 1)[0] == some and len(set(some)) > 1
    assert WIDTH.sooner(rows, 16) == ratio_interval(some, other) and WIDTH.sooner(rows, 16).estimate > 1.5


def test_a_run_that_never_gets_there_may_have_right_after_its_end_and_a_diverged_one_never(frame: pd.DataFrame) -> None:
    rows = WIDTH.by_width(frame)[256].copy()
    own = (rows["stage"] == "confirm") & (rows["lora.ratio"] == 16)
    slow = own & (rows["seed"] == 100)
    rows["curve"] = rows["curve"].mask(slow, curve(0.6, 20))
    found, ends = WIDTH.crossings(rows, 16)
    assert found[0] == np.inf and np.isfinite(found[1:]).all() and ends == [100.0] * 5
    base = WIDTH.crossings(rows, 1)[0]
    assert WIDTH.sooner(rows, 16) == speedup(base, found, horizon=100) and WIDTH.sooner(rows, 16).low == 0
    rows["status"], rows["curve"] = rows["status"].mask(slow, "diverged"), rows["curve"].mask(slow)
    found, ends = WIDTH.crossings(rows, 16)
    assert (found[0], ends[0]) == (np.inf, np.inf)
    rows["curve"] = rows["curve"].mask((rows["stage"] == "confirm") & (rows["lora.ratio"] == 1))
    assert np.isnan(WIDTH.sooner(rows, 16).estimate)


def test_a_diverged_fresh_run_leaves_its_arm_without_gain_and_its_width_without_ratio(frame: pd.DataFrame) -> None:
    gone = (frame["stage"] == "confirm") & (frame["width"] == 512) & (frame["lora.ratio"] == 16)
    gone &= frame["seed"] == 102
    hidden = {name: frame[name].mask(gone) for name in ("test/loss", "test/accuracy", "curve", "correct")}
    spoilt = frame.assign(status=frame["status"].mask(gone, "diverged"), **hidden)
    lr_A, _, ratio, _, gain = (claim.found for claim in claims("width", spoilt))
    assert np.isnan(gain.low) and ratio.n == 3 and lr_A.n == 4
    with drawn("width", spoilt):
        pass


def test_the_summary_has_a_row_an_arm_and_says_which_window_is_too_narrow(frame: pd.DataFrame) -> None:
    table = WIDTH.summary(frame).set_index(["width", "ratio"])
    assert set(table.index) == ARMS
    assert table.loc[(256, 16), "test accuracy"] == round(fresh(frame, 256, 16).mean(), 4)
    rates = frame[(frame["stage"] == "grid") & (frame["width"] == 128) & (frame["lora.ratio"] == 8)]
    means = rates.groupby("optim.lr")["validation/loss"].mean()
    narrow = frame.drop(rates[rates["optim.lr"] > means.idxmin()].index)
    assert table.loc[(128, 8), "interior"] and table.loc[(128, 8), "lr_A"] == means.idxmin()
    assert not WIDTH.summary(narrow).set_index(["width", "ratio"]).loc[(128, 8), "interior"]


def test_two_tasks_are_refused_and_named(frame: pd.DataFrame) -> None:
    both = pd.concat([frame, frame.assign(task="trec")])
    with pytest.raises(UserError, match=r"task: got rotten_tomatoes, trec; one figure .* so name one \(task=...\)"):
        WIDTH.by_width(both)


def test_what_is_kept_has_width_checkpoints_held_out_loss_and_the_curves_of_fresh_seeds(tmp_path: "Path") -> None:
    from loralab.runs.run import run
    from tests.pretraining.test_run import small
    from tests.small_runs import config

    pretrained = small(tmp_path)
    path = f"model.path={tmp_path}/pretrained/width_32/model"
    names = [run(config(tmp_path, *own, "train.eval_first=true"))["name"] for own in ((path,), ())]
    rows = pd.DataFrame({"run": [names[0], names[0], names[1]], "stage": ["grid", "confirm", "confirm"]})
    rows = rows.reindex(columns=["run", *WIDTH.KEPT])
    logged = [
        {"run": name, "split": split, "name": metric, "step": step, "value": step + 0.5}
        for name in names
        for split in ("train", "validation")
        for metric in ("loss", "accuracy")
        for step in (6, 0, 12)
    ]
    kept = WIDTH.reduce(Tables(rows, pd.DataFrame(logged), tmp_path))
    heldout = pretrained["metrics"]["validation"]["last"]["loss"]
    np.testing.assert_equal(kept["pretraining/loss"].tolist(), [heldout, heldout, np.nan])
    assert kept["curve"].fillna("").tolist() == ["", *["0:0.5 6:6.5 12:12.5"] * 2]
    assert kept["width"].tolist() == [32, 32, 64]
