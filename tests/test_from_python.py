"""loralab from Python: train, sweep and load_run give what the command line stores."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import loralab
from loralab.errors import UserError
from loralab.from_python import Run
from loralab.store.run_directory import RunDirectory
from loralab.sweeps.child import passed_on
from tests.small_runs import CONF, SMALL, config


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return loralab.train(*SMALL, store=tmp_path_factory.mktemp("store"), lora={"rank": 2}, seed=1)


def test_train_gives_the_run_of_these_settings(trained: Run) -> None:
    from loralab.runs.plan import plan

    store = trained.path.parent.parent
    assert trained.path == plan(config(store, "lora.rank=2", "seed=1")).directory.path
    assert trained.status == "success" and trained.record == trained.directory.record()
    assert repr(trained) == f"<Run {trained.name}: success>"
    before = (trained.path / "record.json").stat().st_mtime_ns
    again = loralab.train(*SMALL, {"lora.rank": 2}, store=str(store), seed=1)
    assert again.path == trained.path and (again.path / "record.json").stat().st_mtime_ns == before


def test_scores_and_curves_are_those_of_the_files(trained: Run) -> None:
    metrics = trained.directory.finished()["metrics"]  # type: ignore[index]  # it is finished
    assert trained.scores["test/accuracy"] == metrics["test"]["last"]["accuracy"]
    assert trained.scores["best/validation/loss"] == metrics["validation"]["best"]["loss"]
    curves = trained.curves
    assert list(curves) == ["step", "split", "name", "value", "seconds"]
    losses = curves[(curves["split"] == "validation") & (curves["name"] == "loss")]
    assert losses["step"].tolist() == [6, 12] and losses["value"].iloc[-1] == trained.scores["validation/loss"]
    assert len(trained.predictions) == 2 * 64 and {"label", "logits"} <= set(trained.predictions)


def test_the_model_is_the_trained_one(trained: Run) -> None:
    with torch.no_grad():
        batch = trained.tokenizer("a fine film", return_tensors="pt")
        assert trained.model(**batch).logits.shape == (1, 2)
    assert trained.model is trained.model and not trained.model.training


def test_a_run_unpacks_into_its_model_and_tokenizer(trained: Run) -> None:
    model, tokenizer = trained
    assert model is trained.model and tokenizer is trained.tokenizer


def test_predictions_are_those_of_the_model_with_the_names_of_the_classes(trained: Run) -> None:
    texts = pd.Series(["a fine film", None, "dull"], index=[5, 6, 7])
    found = trained.predict(texts)
    record: Any = trained.record
    names = record["outputs"]["labels"]
    assert list(found) == ["prediction", "probability", *(f"p({name})" for name in names)]
    assert found.index.tolist() == [5, 6, 7] and found["prediction"].isna().tolist() == [False, True, False]
    with torch.no_grad():
        p = trained.model(**trained.tokenizer("dull", return_tensors="pt")).logits.softmax(dim=1)[0]
    assert [found[f"p({name})"].loc[7] for name in names] == pytest.approx(p.tolist(), abs=1e-5)


def test_a_run_is_loaded_by_directory_name_or_hash(
    trained: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = trained.path.parent.parent
    for wanted in (trained.path, trained.name, trained.directory.hash, trained.directory.hash[:5]):
        assert loralab.load_run(wanted, store=store).path == trained.path
    monkeypatch.setenv("LORALAB_STORE", str(store))
    assert loralab.load_run(trained.directory.hash).scores == trained.scores
    with pytest.raises(UserError, match="'nope' names no run in "):
        loralab.load_run("nope", store=tmp_path)


def test_a_run_that_has_not_ended_is_read_as_far_as_it_came(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "runs" / "tiny-0123456789")
    directory.path.mkdir(parents=True)
    (directory.path / "metrics.jsonl").write_text(
        '{"step": 1, "split": "train", "values": {"loss": 0.5}, "seconds": 1}\n{'
    )
    run = Run(directory)
    assert run.status == "cut off at step 1" and run.curves["value"].tolist() == [0.5]
    for read in (lambda: run.record, lambda: run.scores, lambda: run.predictions, lambda: run.model):
        with pytest.raises(UserError, match="cut off at step 1"):
            read()
    assert Run(RunDirectory(tmp_path / "runs" / "tiny-1")).curves.empty


@pytest.mark.parametrize(
    ("named", "line"),
    [
        ({"lora": {"rnk": 4}}, r"lora\.rnk: no such key; .*did you mean lora\.rank\?"),
        ({"model": "tnu"}, r"model: got 'tnu'; allowed: .*"),
        ({"seed": [0, 1]}, r"seed: .*"),
        ({"lora": {"rank": 0}}, r"lora\.rank: got 0; it must be a number at least 1"),
        ({"sweeps": "first"}, r"train: got sweeps=first, which is a study; loralab\.sweep trains it"),
    ],
)
def test_a_mistake_is_an_error_of_one_line(named: dict[str, object], line: str) -> None:
    with pytest.raises(UserError, match=f"^{line}") as error:
        loralab.train(**named)
    assert "\n" not in str(error.value)


def test_an_interrupt_is_pythons_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from loralab.training.signals import Interrupted, Interrupts

    def stop(_: Interrupts) -> None:
        raise Interrupted(2)

    with monkeypatch.context() as patch:
        patch.setattr(Interrupts, "check", stop)
        with pytest.raises(KeyboardInterrupt, match="the same call goes on"):
            loralab.train(*SMALL, store=tmp_path)
    assert loralab.train(*SMALL, store=tmp_path).status == "success"


@pytest.mark.slow
def test_a_sweep_gives_a_row_for_each_combination(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    named = {"store": tmp_path, "train": {"steps": 2}, "hydra": {"launcher": {"slots": 1}}}
    found = loralab.sweep(*SMALL, lora={"ratio": [1, 4]}, seed=range(2), **named)
    assert found.runs["status"].tolist() == ["success"] * 4
    assert found.runs[["lora.ratio", "seed"]].to_numpy().tolist() == [[1, 0], [1, 1], [4, 0], [4, 1]]
    assert found.runs["test/accuracy"].notna().all() and "4 runs: 4 success" in capfd.readouterr().err
    with pytest.raises(UserError, match=r"^lora.rank: got 0; it must be a number at least 1"):
        loralab.sweep(*SMALL, lora={"rank": [0, 1]}, store=tmp_path)


def test_the_lines_of_a_process_are_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys; print('out'); print('error: x', file=sys.stderr); sys.exit(2)"
    assert passed_on([sys.executable, "-c", code]) == (2, "out\n", ["error: x\n"])
    assert capsys.readouterr().err == "error: x\n"
    assert passed_on([sys.executable, "-u", "-c", code], whole=True) == (2, "", ["out\n", "error: x\n"])
    assert capsys.readouterr() == ("", "out\nerror: x\n")


def test_what_is_public_is_listed_and_costs_no_import() -> None:
    code = (
        "import sys, loralab; assert {'train', 'sweep', 'load_run', 'load_study', 'tune'} <= set(dir(loralab));"
        "print(*{'torch', 'pandas', 'hydra', 'numpy', 'typing'} & set(sys.modules))"
    )
    source = str(Path(loralab.__file__).parents[1])
    command = [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {source!r}); {code}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "\n"
    assert all(getattr(loralab, name) for name in loralab.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        loralab.__getattr__("trian")


@pytest.mark.slow
def test_the_page_about_python_runs(tmp_path: Path) -> None:
    page = (CONF.parent / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 4
    environment = {**os.environ, "PYTHONPATH": str(CONF.parent / "src")}
    command = [sys.executable, "-c", "\n".join(blocks)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "<Run tiny-" in done.stdout and len(list((tmp_path / "outputs" / "runs").iterdir())) == 5
    assert (tmp_path / "exported" / "adapter_config.json").is_file()
