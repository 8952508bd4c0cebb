"""Arms are named by any axes, and compared by fresh seed and by test item; a selected rate is inside its window."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from loralab.store.predictions import unpacked
from loralab.studies import arms
from loralab.studies.stats import bootstrap_items
from loralab.studies.tables import Tables
from tests.analysis.frames import unlike

RATES, SEEDS, FRESH = (1e-3, 2e-3, 4e-3), (0, 1), (100, 101, 102)


def packed(flags: Any) -> str:
    return f"{len(flags)}:{np.packbits(flags).tobytes().hex()}"


@pytest.fixture
def frame() -> pd.DataFrame:
    """Two sets of targets at two ranks, shuffled; the middle rate is the best."""
    rows: list[dict[str, Any]] = []
    for targets in ("q", "q,v"):
        for rank in (1, 64):
            own: dict[str, Any] = {"lora.targets": targets, "lora.rank": rank}
            grid = [{**own, "stage": "grid", "seed": seed, "optim.lr": lr} for seed in SEEDS for lr in RATES]
            fresh = [{**own, "stage": "confirm", "seed": seed, "optim.lr": RATES[1]} for seed in FRESH]
            rows += [*grid, *fresh]
    for run in rows:
        flags = np.random.default_rng(int(unlike(run, "right") * 2**32)).random(200) < 0.7
        loss = 0.3 + abs(np.log2(run["optim.lr"] / RATES[1])) + unlike(run, "loss") / 100
        scores = {"validation/loss": loss, "test/loss": unlike(run, "test"), "test/accuracy": flags.mean()}
        run |= scores | {"correct": packed(flags) if run["stage"] == "confirm" else ""}
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def by_hand(frame: pd.DataFrame, targets: str, rank: int, name: str) -> list[Any]:
    """A column of the fresh seeds, in the order of the seeds."""
    cells = {}
    for _, row in frame.iterrows():
        if (row["stage"], row["lora.targets"], row["lora.rank"]) == ("confirm", targets, rank):
            cells[row["seed"]] = row[name]
    return [cells[seed] for seed in FRESH]


def test_arms_are_named_by_their_axes_and_share_no_row(frame: pd.DataFrame) -> None:
    found = arms.split_arms(frame, ["lora.targets", "lora.rank"])
    assert set(found) == {("q", 1), ("q", 64), ("q,v", 1), ("q,v", 64)}
    assert sum(map(len, found.values())) == len(frame) and {len(own) for own in found.values()} == {9}
    assert arms.confirm_runs(found["q", 64])["test/loss"].tolist() == by_hand(frame, "q", 64, "test/loss")
    one = arms.split_arms(frame, ["lora.targets"])
    assert set(one) == {"q", "q,v"} and set(one["q"]["lora.targets"]) == {"q"}


def test_a_gain_is_paired_by_seed_and_over_items(frame: pd.DataFrame) -> None:
    found = arms.split_arms(frame, ["lora.targets", "lora.rank"])
    own, base = found["q,v", 1], found["q", 64]
    some, other = (by_hand(frame, *key, "test/loss") for key in (("q,v", 1), ("q", 64)))
    test = scipy_stats.ttest_rel(some, other)
    gain = arms.paired_difference(own, base, "test/loss")
    assert (gain.low, gain.high) == pytest.approx(test.confidence_interval(0.95)) and gain.n == len(FRESH)
    assert gain.estimate == pytest.approx(np.mean(some) - np.mean(other)) and gain.p == pytest.approx(test.pvalue)
    shifted = arms.paired_difference(own, base, "test/loss", null=0.2)
    assert shifted.p == pytest.approx(scipy_stats.ttest_1samp(np.subtract(some, other), 0.2).pvalue)
    rights = [np.stack([unpacked(t) for t in by_hand(frame, *key, "correct")]) for key in (("q,v", 1), ("q", 64))]
    assert arms.gain_over_items(own, base) == bootstrap_items(*rights)
    row = arms.comparison_row(own, base)
    accuracy = [by_hand(frame, *key, "test/accuracy") for key in (("q,v", 1), ("q", 64))]
    assert row["difference, points"] == f"{100 * (np.mean(accuracy[0]) - np.mean(accuracy[1])):+.2f}"
    assert row["lr_A"] == RATES[1] and row["test loss"] == round(np.mean(some), 4)


def test_an_interval_that_is_not_known_has_no_text(frame: pd.DataFrame) -> None:
    found = arms.split_arms(
        frame[(frame["stage"] == "grid") | (frame["seed"] == FRESH[0])], ["lora.targets", "lora.rank"]
    )
    row = arms.comparison_row(found["q,v", 1], found["q", 64])
    assert row["by seed"] is None and row["difference, points"] != "+nan"


def test_a_diverged_seed_leaves_no_gain(frame: pd.DataFrame) -> None:
    gone = (frame["stage"] == "confirm") & (frame["seed"] == 101) & (frame["lora.rank"] == 1)
    spoilt = frame.assign(**{name: frame[name].mask(gone) for name in ("test/accuracy", "correct")})
    found = arms.split_arms(spoilt, ["lora.targets", "lora.rank"])
    for pair in ((("q", 1), ("q", 64)), (("q", 64), ("q", 1))):
        own, base = (found[key] for key in pair)
        assert np.isnan(arms.paired_difference(own, base, "test/accuracy").p) and np.isnan(
            arms.gain_over_items(own, base).p
        )
    assert np.isfinite(arms.paired_difference(found["q", 64], found["q,v", 64], "test/accuracy").p)


def test_a_rate_at_the_end_of_its_window_is_not_interior(frame: pd.DataFrame) -> None:
    own = arms.split_arms(frame, ["lora.targets", "lora.rank"])["q", 1]
    assert arms.interior(own)
    assert not arms.interior(own[own["optim.lr"] >= RATES[1]])
    assert arms.interior(own.assign(**{"lora.ratio": 4}), 4)


def test_facts_are_read_of_each_runs_record(tmp_path: Any) -> None:
    from loralab.runs.run import run
    from tests.small_runs import SMALL_ROWS, config

    record = run(config(tmp_path, "train.steps=1"))
    tables = Tables(pd.DataFrame({"run": [record["name"], "b"]}), pd.DataFrame(), tmp_path)
    np.testing.assert_equal(arms.record_values(tables, "rows", "train"), [SMALL_ROWS, np.nan])
    assert np.isnan(arms.record_values(tables, "parameters", "nosuch")).all()


def test_the_width_is_that_of_the_adapted_maps_inputs(tmp_path: Any) -> None:
    from loralab.runs.run import run
    from tests.small_runs import config

    record = run(config(tmp_path, "lora.rank=3", "train.steps=1"))
    head = run(config(tmp_path, "method=head", "train.steps=1"))
    names = [record["name"], head["name"], "absent"]
    tables = Tables(pd.DataFrame({"run": names}), pd.DataFrame(), tmp_path)
    np.testing.assert_equal(arms.widths(tables), [64.0, np.nan, np.nan])
