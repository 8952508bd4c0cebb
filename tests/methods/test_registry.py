"""Laws of every method: trained parameters, byte-identical resumption, and a lossless round trip through disk."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loralab.config.schema import METHODS
from loralab.errors import UserError
from loralab.methods.registry import CATALOGUE
from loralab.runs.export import export
from loralab.runs.load import load_run
from loralab.runs.plan import plan
from loralab.runs.run import run
from loralab.store.run_directory import RunDirectory
from tests.methods.prompted import of_peft
from tests.runs.test_export import logits_of, stored
from tests.small_runs import CONF, config, cut_off, outcome

# Where the defaults are too large for the tiny backbone, or learn too little in twelve steps.
SETTINGS = {
    "head": ["optim.lr=1e-2"],
    "bitfit": ["optim.lr=1e-2"],
    "houlsby": ["bottleneck.size=4", "optim.lr=1e-2"],
    "pfeiffer": ["bottleneck.size=4", "optim.lr=1e-2"],
    "prefix": ["prompt.tokens=3"],
    "prompt": ["prompt.tokens=3"],
    "p_tuning": ["prompt.tokens=3", "prompt.hidden=8"],
    "intrinsic": ["intrinsic.dim=20", "optim.lr=1e-2"],
    "lora_prefix": ["prompt.tokens=3", "lora.rank=2"],
    "full": ["optim.lr=1e-3"],
    "lora": ["lora.rank=2"],
    "lora_plus": ["lora.rank=2"],
    "rslora": ["lora.rank=2"],
    "dora": ["lora.rank=2"],
}
CANNOT_BE_MERGED = {"houlsby", "pfeiffer", "prefix", "prompt", "p_tuning", "lora_prefix"}
EVERY = sorted(path.stem for path in (CONF / "method").glob("*.yaml"))


def settings(method: str) -> list[str]:
    return [f"method={method}", "train.precision=fp32", *SETTINGS.get(method, ())]


def test_every_method_of_the_configuration_is_in_the_catalogue_and_has_an_option() -> None:
    assert CATALOGUE.keys() == METHODS.keys()
    assert METHODS.keys() <= set(EVERY) and SETTINGS.keys() <= set(EVERY)
    assert {name for name in CATALOGUE.keys() & SETTINGS if CATALOGUE[name].merge is None} == CANNOT_BE_MERGED


@pytest.fixture(scope="module", params=EVERY)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, RunDirectory]:
    """A small finished run of each method."""
    method: str = request.param
    asked = config(tmp_path_factory.mktemp(method), *settings(method))
    run(asked)
    return method, plan(asked).directory


def test_a_stop_in_the_middle_changes_no_byte(
    trained: tuple[str, RunDirectory], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, whole = trained
    asked = config(tmp_path, *settings(method))
    cut_off(asked, monkeypatch, at=7)
    record = run(asked)
    assert record["timing"]["steps_executed"] == 12
    assert outcome(tmp_path) == outcome(whole.path.parent.parent)


def test_a_loaded_run_gives_the_runs_own_predictions(trained: tuple[str, RunDirectory]) -> None:
    _, directory = trained
    model, tokenizer = load_run(directory.path)
    assert np.abs(logits_of(model, tokenizer) - stored(directory)).max() < 1e-5


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT and transformers
def test_an_export_gives_the_runs_own_predictions(trained: tuple[str, RunDirectory], tmp_path: Path) -> None:
    """As a plain checkpoint where the method can be merged; else as PEFT's, or as `load_run` reads it."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    _, directory = trained
    record = directory.finished()
    assert record is not None
    method = CATALOGUE[record["config"]["method"]["name"]]
    if method.merge is None:
        with pytest.raises(UserError, match=r"cannot be merged into the weights; export it without --merged$"):
            export(directory, tmp_path / "merged", merged=True, dtype="fp32")
        export(directory, tmp_path / "out", merged=False, dtype="fp32")
        if method.peft:
            model, tokenizer = through_peft(directory, tmp_path / "out")
        else:
            model, tokenizer = load_run(tmp_path / "out")
    else:
        export(directory, tmp_path / "out", merged=True, dtype="fp32")
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert np.abs(logits_of(model, tokenizer) - stored(directory)).max() < 1e-5


def test_only_what_the_method_trains_moves(trained: tuple[str, RunDirectory]) -> None:
    """And all of it does: the frozen weights are those of the backbone, bit for bit."""
    method, directory = trained
    if method in ("full", "intrinsic"):
        return
    start, end = before_training(directory).model, load_run(directory.path)[0]
    there = dict(end.named_parameters())
    moved = {n for n, p in start.named_parameters() if n in there and not torch.equal(p, there[n])}
    kept = {"prompt.encoder"}  # what made the virtual tokens is folded into them
    trained_ones = {n for n, p in start.named_parameters() if p.requires_grad and not n.startswith(tuple(kept))}
    assert moved == trained_ones


def test_a_run_whose_data_has_changed_is_loaded(finished: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loralab.tasks.packaged.fingerprint", lambda *_files, cache: "other")
    model, tokenizer = load_run(finished.path)
    assert np.abs(logits_of(model, tokenizer) - stored(finished)).max() < 1e-5


def test_the_head_alone_of_a_model_that_answers_in_text_is_refused_for_there_is_none(tmp_path: Path) -> None:
    asked = config(
        tmp_path, "model=tiny_decoder", "task=sql", "task.eval_rows=8", "train.max_length=192", "method=head"
    )
    with pytest.raises(UserError, match=r"^method.name: head trains nothing here"):
        run(asked)


def before_training(directory: RunDirectory) -> Any:
    from loralab.runs.build import adapted_backbone, read_task
    from loralab.runs.plan import replan

    record = directory.finished()
    assert record is not None
    planned = replan(directory, record)
    return adapted_backbone(planned, read_task(planned))


def through_peft(directory: RunDirectory, exported: Path) -> tuple[Any, Any]:
    """The exported adapter on the bare backbone, both as others would load them."""
    from peft import PeftModel
    from transformers import AutoTokenizer

    from loralab.backbones.load import load

    planned = plan(config(directory.path.parent.parent, "method=head"))
    bare = load(
        planned.source,
        labels=2,
        regression=False,
        dropout=0.0,
        attention="eager",
        dtype=torch.float32,
        device="cpu",
        seed=0,
    )
    return of_peft(PeftModel.from_pretrained(bare.model, exported).eval()), AutoTokenizer.from_pretrained(exported)
