"""The key of a pack: what its runs share, and what may differ between them."""

from pathlib import Path

import pytest

from loralab.runs.pack_key import pack_key
from loralab.runs.plan import plan
from tests.runs.test_pack import FP32, RUNS
from tests.small_runs import config


def key(tmp_path: Path, *overrides: str) -> str | None:
    return pack_key(plan(config(tmp_path, *FP32, *overrides)))


def test_runs_of_one_pack_differ_in_rates_adapters_and_seeds_alone(tmp_path: Path) -> None:
    first = key(tmp_path)
    assert first is not None
    assert {key(tmp_path, *overrides) for overrides in RUNS} == {first}
    for other in ("train.batch_size=4", "train.steps=13", "lora.targets=[q]", "train.eval_every=3", "method=head"):
        assert key(tmp_path, other) not in (None, first), other


@pytest.mark.parametrize(
    "setting",
    [
        "lora.dropout=0.1",
        "model.dropout=0.1",
        "method=dora",
        "lora.bias=lora",
        "train.micro_batch_size=2",
        "train.threads=2",
        "method=full",
    ],
)
def test_what_a_pack_does_not_reproduce_trains_alone(setting: str, tmp_path: Path) -> None:
    assert key(tmp_path, setting) is None
