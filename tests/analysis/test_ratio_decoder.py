"""ratio_decoder and ratio_sql: built-in gains are found, each with its verdict, and the figure shows the CSV."""

import functools
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from loralab.config.keys import config_values
from loralab.config.overrides import settings
from loralab.config.schema import from_hydra
from loralab.studies import committed
from loralab.sweeps.study import open_study
from tests.analysis.frames import claims, distinct, drawn, made, marks, module, unlike, verdicts

RATIOS = (1, 4, 16)
STUDIES = ("ratio_decoder", "ratio_sql")
C = {"ratio_decoder": 0.0113, "ratio_sql": 0.0226}  # lr_A sqrt(r λ s) of the lowest loss


@functools.cache
def built(name: str, points: float = 0.0, noise: float = 1e-3) -> pd.DataFrame:
    """Losses are parabolas in log lr_A around C / sqrt(8 λ), lower by .02 at λ = 4; λ = 16 gains these points."""

    def score(run: dict[str, Any]) -> dict[str, Any]:
        ratio, level = run["lora.ratio"], unlike({"seed": run["seed"]}, "level") / 20
        away = np.log2(run["optim.lr"] * np.sqrt(8 * ratio) / C[name])
        loss = 1 + level + away**2 / 10 - 0.02 * (ratio == 4) + noise * (unlike(run, "loss") - 0.5)
        accuracy = 0.7 + level + points / 100 * (ratio == 16) + noise * (unlike(run, "accuracy") - 0.5)
        losses = {"validation/loss": loss, "test/loss": loss}
        return distinct(run) | losses | {"test/accuracy": accuracy, "correct": ""}

    return made(name, score)


def fresh(frame: pd.DataFrame, ratio: float, metric: str) -> Any:
    rows = frame[(frame["stage"] == "confirm") & (frame["lora.ratio"] == ratio)].sort_values("seed")
    assert rows["seed"].tolist() == list(range(100, 105))
    return rows[metric].to_numpy(dtype=float)


@pytest.mark.parametrize("name", STUDIES)
def test_the_windows_contain_the_law_and_give_its_constant(name: str) -> None:
    summary = module(name).summary(built(name)).set_index("ratio")
    assert list(summary.index) == list(RATIOS) and summary["interior"].all()
    assert [float(c) for c in summary["c"]] == pytest.approx([C[name]] * 3, rel=0.02)


@pytest.mark.parametrize(
    ("points", "noise", "wanted"),
    [
        (1.5, 1e-3, "held"),
        (-1.0, 1e-3, "contradicted in size"),
        (0.0, 1e-3, "equivalent"),
        (0.0, 0.2, "not identified"),
    ],
)
def test_the_verdict_on_a_gain_of_a_point_is_what_was_built_in(points: float, noise: float, wanted: str) -> None:
    frame = built("ratio_decoder", points, noise)
    assert verdicts("ratio_decoder", frame)[0] == wanted
    (question,) = committed.questions("ratio_decoder", frame)
    assert (question.needed(question.claims[0]) > 5) == (wanted == "not identified")


@pytest.mark.parametrize("name", STUDIES)
def test_the_claims_follow_what_was_built_in(name: str) -> None:
    sixteen, four = claims(name, built(name, 1.5))
    assert (sixteen.arm, four.arm) == ("λ = 16", "λ = 4") and verdicts(name, built(name, 1.5))[0] == "held"
    assert sixteen.found.estimate == pytest.approx(0.015, abs=2e-3)
    assert four.loss is not None and four.loss.estimate == pytest.approx(-0.02, abs=2e-3)


@pytest.mark.parametrize("name", STUDIES)
def test_the_figure_shows_windows_selected_rates_and_paired_differences(name: str) -> None:
    frame = built(name, 1.5)
    with drawn(name, frame) as figure:
        windows, *scores = cast(Any, figure.axes)
        assert [line.get_label() for line in windows.lines[:-1:2]] == [f"λ = {ratio}" for ratio in RATIOS]
        for ratio, dot in zip(RATIOS, windows.lines[1:-1:2], strict=True):
            rows = frame[(frame["stage"] == "confirm") & (frame["lora.ratio"] == ratio)]
            assert {float(np.ravel(dot.get_xdata())[0])} == set(rows["optim.lr"])
        panels = [(ratio, metric) for ratio in RATIOS[1:] for metric in ("test/accuracy", "test/loss")]
        for ax, (ratio, metric) in zip(scores, panels, strict=True):  # each with its own scale
            ((_, _, values, ends),) = marks(ax, across=True)
            one, other = (fresh(frame, each, metric) for each in (1, ratio))
            scale = 100 if metric == "test/accuracy" else 1
            assert values == pytest.approx([scale * (other - one).mean()])
            interval = stats.ttest_rel(other, one).confidence_interval(0.95)
            assert ends[0] == pytest.approx([scale * end for end in interval])
            assert [label.get_text() for label in ax.get_yticklabels()] == ([f"λ = {ratio}"] if scale > 1 else [""])


def test_both_studies_compare_the_same_arms_in_the_same_way() -> None:
    for name in STUDIES:
        trials = built(name).groupby(["stage", "lora.ratio"]).size().unstack()
        assert trials.loc["grid"].nunique() == 1 and (trials.loc["confirm"] == 5).all()


def configs_of(name: str, **wanted: Any) -> list[str]:
    """The configs of the first stage's jobs that have these settings, without the tracker's, which name the study."""
    with open_study(name) as study:
        jobs = [job for job in study.grid if all(settings(job).get(key) == value for key, value in wanted.items())]
        configs = [config_values(from_hydra(study.composer.settings(job))) for job in jobs]
    return [repr({key: value for key, value in config.items() if key != "tracker"}) for config in configs]


@pytest.mark.parametrize(
    ("name", "wanted", "shared"),
    [
        ("rank_decoder", {"lora.rank": 8}, "ratio_decoder"),
        ("tenfold_decoder", {"lora.targets": ["q", "v"], "seed": 0}, "ratio_decoder"),
        ("forgetting", {"lora.rank": 8, "lora.targets": None}, "ratio_sql"),
    ],
)
def test_other_studies_share_their_runs_with_these(name: str, wanted: dict[str, Any], shared: str) -> None:
    own = configs_of(name, **wanted)
    assert len(own) >= 3 and set(own) <= set(configs_of(shared))
