"""tune.yaml: what is written is read again, and what a person reads of it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from loralab.errors import UserError
from loralab.tuning.tuned import Tuned, rate


def example(folder: Path, **changes: Any) -> Tuned:
    runs = [
        {"run": "0123456789", "optim.lr": lr, "seed": seed, "until": until, "status": status, "loss": loss,
         "share": until, "seconds": 60.0, "before": before}
        for lr, seed, until, status, loss, before in (
            (8e-4, 0, 0.5, "paused", 0.52, False), (1.6e-3, 0, 1.0, "success", 0.41, False),
            (1.6e-3, 1, 1.0, "success", 0.42, False), (3.2e-3, 0, 1.0, "success", 0.43, True),
            (6.4e-3, 0, 0.2, "diverged", None, False),
        )
    ]  # fmt: skip
    values: dict[str, Any] = {
        "file": folder / "tune.yaml", "settings": {"optim.lr": 1.6e-3}, "overrides": ["task=trec", "optim.lr=0.0016"],
        "loss": 0.415, "plateau": (1.6e-3, 3.2e-3), "noise": 0.007, "notes": ["a note"],
        "predicted": [{"optim.lr": 2e-3}], "runs": runs, "cost": {"full_runs": 2.7, "seconds": 240.0}, "gain": None,
    }  # fmt: skip
    return Tuned(**(values | changes))


GAIN = {
    "seeds": [100, 101],
    "scores": {
        "validation/loss": {"recommended": 0.41, "default": 0.43, "difference": -0.02, "low": -0.03, "high": -0.01},
        "test/accuracy": {"recommended": 0.9, "default": None, "difference": None, "low": None, "high": None},
    },
}


@pytest.mark.parametrize("changes", [{}, {"plateau": None, "noise": None}, {"gain": GAIN}])
def test_what_is_written_is_read_again(changes: dict[str, Any], tmp_path: Path) -> None:
    found = example(tmp_path, **changes)
    found.write()
    assert Tuned.read(tmp_path / "tune.yaml") == Tuned.read(tmp_path) == found


def test_a_person_reads_the_recommendation_its_plateau_cost_and_command(tmp_path: Path) -> None:
    lines = example(tmp_path).lines()
    assert lines[:4] == [
        "recommended: optim.lr=1.6e-3",
        "  validation loss 0.4150; seeds differ by 0.0070 (standard deviation)",
        "  1.6e-3 to 3.2e-3 are within noise",
        "  a note",
    ]
    assert lines[4] == "  cost: 2.7 full runs in 4 trials, 4 min of training"
    assert lines[5:] == [
        f"train it: python train.py tuned={tmp_path}/tune.yaml",
        "      or: python train.py task=trec optim.lr=0.0016",
    ]


def test_a_gain_has_its_interval_and_a_run_that_diverged_none(tmp_path: Path) -> None:
    lines = [line.strip() for line in example(tmp_path, gain=GAIN).lines()]
    assert "against the default, on 2 fresh seeds (difference, 95% interval):" in lines
    assert "validation/loss: 0.4100 against 0.4300: -0.0200 [-0.0300, -0.0100]" in lines
    assert "test/accuracy: 0.9000 against diverged" in lines
    assert any(line.endswith("of training; and 4 full runs on fresh seeds") for line in lines)


def test_the_trials_are_a_table(tmp_path: Path) -> None:
    trials = example(tmp_path).trials
    assert list(trials["optim.lr"]) == [8e-4, 1.6e-3, 1.6e-3, 3.2e-3, 6.4e-3]
    assert trials["loss"].isna().sum() == 1


@pytest.mark.parametrize("missing", ["loss", "runs", "cost", "plateau"])
def test_a_file_without_a_key_is_one_line(missing: str, tmp_path: Path) -> None:
    example(tmp_path).write()
    values = yaml.safe_load((tmp_path / "tune.yaml").read_text())
    del values[missing]
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UserError, match=rf"tune.yaml is damaged \(KeyError: '{missing}'\); tune again"):
        Tuned.read(tmp_path)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.6e-3, "1.6e-3"), (0.00141, "1.41e-3"), (4.0, "4"), (0.05, "0.05"), (8, "8"), (("q", "v"), "[q,v]"), (0.0, "0")],
)
def test_a_rate_is_written_as_people_do(value: Any, text: str) -> None:
    assert rate(value) == text
