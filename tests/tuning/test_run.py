"""A whole session in this process, by the search of the law: for every kind of method, with λ, and on fresh seeds."""

from pathlib import Path
from typing import Any

import pytest

from loralab.errors import UserError
from loralab.tuning.options import Options
from loralab.tuning.run import tune
from loralab.tuning.tuned import Tuned
from tests.small_runs import composer
from tests.tuning.sessions import COMMAND, Trained


def tuned(store: Path, *overrides: str, **options: Any) -> tuple[Tuned, Trained]:
    launch = Trained()
    found = tune(
        composer(), [*COMMAND, f"store={store}", *overrides], Options(**options),
        launch=launch, at_once=2, attach=lambda _: None,
    )  # fmt: skip
    return found, launch


def test_the_recommendation_is_a_run_that_is_there(tmp_path: Path) -> None:
    found, launch = tuned(tmp_path, budget=2, name="mine", seeds=1)
    assert found.file.parent.name.startswith("mine-") and found.figure.is_file()
    assert Tuned.read(found.file) == found
    jobs = [job for launched in launch.launches for job in launched]
    assert {f"store={tmp_path}", *found.overrides} in [set(job) - {"seed=0"} for job in jobs]
    assert not any(text.startswith(("store=", "seed=")) for text in found.overrides)
    assert found.cost["full_runs"] <= 2


def test_with_a_ratio_s_lambda_is_checked_at_1_and_16(tmp_path: Path) -> None:
    measured = "model.rates={q:0.02,v:0.02,head:0.004}"
    found, launch = tuned(tmp_path, "lora.alpha=16", measured, budget=8, ratio=True, seeds=1)
    assert {run["lora.ratio"] for run in found.runs} == {4.0, 0.5, 8.0}
    assert [each["lora.ratio"] for each in found.predicted] == [4.0, 0.5, 8.0]
    assert set(found.settings) == {"lora.ratio", "optim.lr"} and launch.launches


@pytest.mark.parametrize("method", ["full", "bitfit"])
def test_a_method_without_a_and_b_climbs_from_below_its_own_rate(method: str, tmp_path: Path) -> None:
    found, launch = tuned(tmp_path, f"method={method}", budget=3, seeds=1)
    first = [float(text.partition("=")[2]) for text in launch.launches[0][0] if text.startswith("optim.lr=")]
    assert first[0] < found.predicted[0]["optim.lr"]
    assert set(found.settings) == {"optim.lr"}


def test_a_method_without_lambda_has_none_to_check(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--ratio: method=bitfit has no A and B, so no λ; leave it out"):
        tuned(tmp_path, "method=bitfit", ratio=True)


def test_a_figure_that_cannot_be_written_is_one_line_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "file" / "a.png"):
        with pytest.raises(UserError, match="--to: "):
            tuned(tmp_path / "store", figure=str(place))
    assert not (tmp_path / "store").exists()


def test_fresh_seeds_are_trained_and_kept_out_of_the_search(tmp_path: Path) -> None:
    found, launch = tuned(tmp_path, budget=2, confirm=1)
    assert (found.gain is None) == ("it is the default" in found.notes)
    if found.gain is not None:
        assert found.gain["seeds"] == [100] and len(launch.launches[-1]) == 2
    assert all(run["seed"] < 100 for run in found.runs)
    again, launched = tuned(tmp_path, budget=2, confirm=1)
    assert again.settings == found.settings and again.gain == found.gain
    assert [job for jobs in launched.launches for job in jobs if "seed=0" in job] == []
