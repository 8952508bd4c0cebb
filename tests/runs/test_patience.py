"""Laws of `train.patience` and `train.keep`: the end that validation asks for, and the weights of the best step."""

from pathlib import Path

import pytest

from loralab.inspect.evaluation import of_split
from loralab.runs.console import summary
from loralab.runs.plan import plan
from loralab.runs.run import run
from loralab.store.record import kept
from loralab.store.run_directory import RunDirectory
from tests.small_runs import config, cut_off, outcome

# The best step is not the last one, and some evaluation after it is no better.
OPTIONS = ("task.eval_rows=null", "optim.lr=3e-2", "train.eval_every=2", "optim.schedule=constant", "seed=3")


def validations(store: Path) -> list[tuple[int, float]]:
    lines = [line for line in outcome(store)["lines"] if line["split"] == "validation"]
    return [(line["step"], line["values"]["accuracy"]) for line in lines]


def weights(store: Path) -> list[bytes]:
    return [content for name, content in outcome(store)["weights"] if name.endswith(".safetensors")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without patience; not to be changed."""
    store = tmp_path_factory.mktemp("whole")
    run(config(store, *OPTIONS))
    return store


@pytest.mark.parametrize("patience", [1, 2])
def test_a_run_ends_after_so_many_evaluations_without_a_better_one(
    tmp_path: Path, whole: Path, patience: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, best, since = 12, -1.0, 0
    for step, accuracy in validations(whole):
        best, since = (accuracy, 0) if accuracy > best else (best, since + 1)
        if since == patience:
            wanted = step
            break
    assert wanted < 12, "the run must not come to its last step here"
    options = (*OPTIONS, f"train.patience={patience}")
    record = run(config(tmp_path / "early", *options))
    assert (record["status"], record["steps"], record["total_steps"]) == ("success", wanted, 12)
    assert summary(record)[0] == f"success, ended early at step {wanted} of 12 by train.patience"
    assert record["metrics"]["test"]["last"]["step"] == wanted
    early, untouched = outcome(tmp_path / "early")["lines"], outcome(whole)["lines"]
    assert early == [line for line in untouched if line["step"] <= wanted]
    again = run(config(tmp_path / "early", *options))
    assert again == record, "a run that has ended is not trained again"

    cut_off(config(tmp_path / "cut", *options), monkeypatch, at=4)
    run(config(tmp_path / "cut", *options, "train.pause_at=4"))
    run(config(tmp_path / "cut", *options))
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "early")


def test_patience_that_is_never_used_up_changes_nothing_but_the_identity(tmp_path: Path, whole: Path) -> None:
    asked = config(tmp_path, *OPTIONS, "train.patience=6")
    record = run(asked)
    assert record["steps"] == 12 and "total_steps" not in record
    assert outcome(tmp_path) == outcome(whole)
    assert plan(asked).directory.hash != plan(config(tmp_path, *OPTIONS)).directory.hash


def test_the_weights_of_the_best_step_are_those_of_a_run_of_so_many_steps(tmp_path: Path, whole: Path) -> None:
    record = run(config(tmp_path / "best", *OPTIONS, "train.keep=best"))
    step = record["metrics"]["validation"]["best"]["step"]
    assert 0 < step < 12
    run(config(tmp_path / "short", *OPTIONS, f"train.steps={step}"))
    assert weights(tmp_path / "best") == weights(tmp_path / "short") != weights(whole)
    kept, last = outcome(tmp_path / "best"), outcome(whole)
    assert {**kept, "weights": None} == {**last, "weights": None}, "all but the weights is as it was"


def test_a_run_that_ends_early_and_explodes_has_diverged(tmp_path: Path) -> None:
    """Its last evaluation judges it, as that of the last step does."""
    broken = ("optim.warmup=0", "optim.clip=null", "optim.schedule=constant", "optim.lr=1e3", "train.eval_first=true")
    record = run(config(tmp_path, *broken, "train.eval_every=1", "train.log_every=100", "train.patience=1"))
    assert record["status"] == "diverged" and record["steps"] < 12


def test_what_is_kept_is_what_is_evaluated(tmp_path: Path) -> None:
    run(config(tmp_path, *OPTIONS, "train.keep=best"))
    (path,) = tmp_path.glob("runs/*")
    directory = RunDirectory(path)
    record = directory.finished()
    assert record is not None
    step = record["metrics"]["validation"]["best"]["step"]
    assert kept(record) == ("best", step)
    stored, again = (of_split(directory, split, device="cpu") for split in ("test", "validation"))
    assert stored.step == again.step == step
    for split, found in (("test", stored), ("validation", again)):
        assert found.scores["accuracy"] == record["metrics"][split]["best"]["accuracy"]
        assert found.scores["loss"] == pytest.approx(record["metrics"][split]["best"]["loss"], rel=1e-5)
