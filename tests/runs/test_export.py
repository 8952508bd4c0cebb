"""Tests of exported runs: PEFT and transformers load them, and their outputs equal the run's."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from loralab.errors import UserError
from loralab.runs.export import export
from loralab.runs.load import load_run
from loralab.runs.plan import plan
from loralab.runs.run import run
from loralab.store.run_directory import RunDirectory
from loralab.tasks import TaskSettings, packaged
from loralab.tasks.splits import subset
from tests.families import FAMILIES, save_checkpoint
from tests.small_runs import SMALL_ROWS, config


def logits_of(model: Any, tokenizer: Any) -> NDArray[np.float32]:
    """A loaded model's, for the first test sentences of a small run."""
    rows = subset(packaged.read(TaskSettings("rotten_tomatoes")), SMALL_ROWS, SMALL_ROWS)
    texts = [text for (text,) in rows.splits["test"].texts[:8]]
    batch = tokenizer(texts, truncation=True, max_length=32, padding=True, return_tensors="pt")
    with torch.no_grad():
        found: NDArray[np.float32] = model(**batch).logits.numpy()
    return found


def stored(run: RunDirectory) -> NDArray[np.float32]:
    """The run's own predictions of the same sentences, at its last step."""
    table = pd.read_parquet(run.predictions)
    last = table[(table["at"] == "last") & (table["split"] == "test")]
    return np.stack(last["logits"].iloc[:8].to_list())


def test_a_merged_export_gives_the_runs_own_predictions_in_plain_transformers(
    finished: RunDirectory, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    export(finished, tmp_path / "whole", merged=True, dtype="fp32")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "whole")
    assert np.abs(logits_of(model, tokenizer) - stored(finished)).max() < 1e-5


def test_a_merged_export_takes_the_precision_asked_for(finished: RunDirectory, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    export(finished, tmp_path / "half", merged=True, dtype="bf16")
    assert {w.dtype for w in load_file(tmp_path / "half" / "model.safetensors").values()} == {torch.bfloat16}


@pytest.fixture(scope="module")
def fully_tuned(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A small run of full fine-tuning; not to be changed."""
    asked = config(tmp_path_factory.mktemp("full"), "method=full", "optim.lr=1e-3")
    run(asked)
    return plan(asked).directory


def test_a_fully_fine_tuned_export_gives_the_runs_own_predictions(fully_tuned: RunDirectory, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    export(fully_tuned, tmp_path / "whole", merged=True, dtype="fp32")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole").eval()
    assert (
        np.abs(logits_of(model, AutoTokenizer.from_pretrained(tmp_path / "whole")) - stored(fully_tuned)).max() < 1e-5
    )
    note = (tmp_path / "whole" / "README.md").read_text()
    assert "method=full" in note and "AutoModelForSequenceClassification" in note and "peft" not in note
    export(fully_tuned, tmp_path / "half", merged=True, dtype="bf16")
    half = AutoModelForSequenceClassification.from_pretrained(tmp_path / "half", dtype="auto")
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


def test_a_fully_fine_tuned_run_has_no_adapter_to_give(fully_tuned: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r": a fully fine-tuned run has no adapter; add --merged$"):
        export(fully_tuned, tmp_path / "out", merged=False, dtype="fp32")
    assert not (tmp_path / "out").exists()


def test_an_adapter_export_is_the_runs_adapter_with_tokenizer_and_note(finished: RunDirectory, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    export(finished, tmp_path / "adapter", merged=False, dtype="fp32")
    for file in finished.adapter.iterdir():
        assert (tmp_path / "adapter" / file.name).read_bytes() == file.read_bytes()
    assert AutoTokenizer.from_pretrained(tmp_path / "adapter")("good")["input_ids"]
    note = (tmp_path / "adapter" / "README.md").read_text()
    assert note.startswith(f"# {finished.path.name}\n")
    assert "python train.py model=tiny" in note
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["peft_type"] == "LORA"
    assert json.loads((tmp_path / "adapter" / "id2label.json").read_text()) == {"0": "negative", "1": "positive"}


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT and transformers
@pytest.mark.parametrize("method", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_without_its_data_a_run_is_exported_and_the_readmes_code_loads_it_with_the_users_labels(
    method: str, tmp_path: Path
) -> None:
    base = save_checkpoint(FAMILIES["bert"]().base_model, tmp_path / "base")
    data = tmp_path / "mine.csv"
    data.write_text("text,kind\n" + "".join(f"w{10 + i} w{i + 3},{'dull' if i % 2 else 'fine'}\n" for i in range(60)))
    asked = config(
        tmp_path / "store", "model.name=mine", f"model.path={base}", "task=local", f"task.files.train={data}",
        "task.text=[text]", "task.label=kind", "task.train_rows=null", "task.eval_rows=null", f"method={method}",
        "optim.lr=1e-2", "train.steps=3",
    )  # fmt: skip
    run(asked)
    trained = plan(asked).directory
    data.write_text("text,kind\nanother,one\n")
    for merged in (False, True) if method == "lora" else (True,):
        directory = tmp_path / f'it\'s "{merged}"'
        export(trained, directory, merged=merged, dtype="fp32")
        data.unlink(missing_ok=True)
        names: dict[str, Any] = {}
        exec((directory / "README.md").read_text().split("```python\n")[1].split("```")[0], names)
        model, batch = names["model"].eval(), names["tokenizer"](["w10 w3", "w11 w4"], return_tensors="pt")
        assert model.config.id2label == {0: "dull", 1: "fine"}
        ours, _ = load_run(trained.path)
        with torch.no_grad():
            torch.testing.assert_close(model(**batch).logits, ours(**batch).logits, rtol=0, atol=1e-5)


def test_a_directory_with_something_in_it_is_refused(finished: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(UserError, match="is there already and is not an empty directory"):
        export(finished, tmp_path, merged=False, dtype="fp32")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_run_without_an_adapter_is_refused(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "store" / "runs" / "tiny-x-0123456789")
    run.begin("seed: 0\n")
    with pytest.raises(UserError, match=r"has no adapter to export \(cut off at step 0\)"):
        export(run, tmp_path / "out", merged=False, dtype="fp32")


def test_a_backbone_that_has_changed_is_refused(
    finished: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loralab.backbones.tiny.WEIGHT_SEED", 1)
    with pytest.raises(UserError, match=r"^model.name: random has changed since the run was trained"):
        export(finished, tmp_path / "out", merged=False, dtype="fp32")
    assert not (tmp_path / "out").exists()


def test_a_merged_export_of_a_decoder_answers_as_the_run_does_in_plain_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rows = [{"said": f"say ok {i}", "answer": "ok"} for i in range(60)]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = config(
        tmp_path / "store", "model=tiny_decoder", "task=pairs", f"task.files.train={pairs}", "task.text=[said]",
        "task.label=answer", "task.train_rows=null", "task.eval_rows=null", "task.validation_share=0.2",
        "task.test_share=0.2", "task.split_seed=1", "method=lora", "lora.targets=[all]", "optim.lr=1e-2",
        "train.precision=fp32", "generate.max_new_tokens=6", "generate.separator='='",
    )  # fmt: skip
    run(asked)
    trained = plan(asked).directory
    export(trained, tmp_path / "whole", merged=True, dtype="fp32")
    note = (tmp_path / "whole" / "README.md").read_text()
    assert "AutoModelForCausalLM.from_pretrained" in note and "AutoModelForSequenceClassification" not in note
    ours, _ = load_run(trained.path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "whole").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "whole")
    answers = pd.read_parquet(trained.predictions).query("at == 'last' and split == 'test'")
    assert len(answers) == 12
    for row, stored_answer in zip(answers["row"], answers["text"], strict=True):
        batch = tokenizer(f"say ok {row}=", return_tensors="pt")
        found = [model.generate(**batch, max_new_tokens=6, do_sample=False) for model in (ours, theirs)]
        assert torch.equal(*found)
        answer = found[1][0, batch["input_ids"].shape[1] :]
        assert tokenizer.decode(answer, skip_special_tokens=True).strip() == stored_answer
        with torch.no_grad():
            torch.testing.assert_close(theirs(**batch).logits, ours(**batch).logits, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def widened(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A small run on a checkpoint at twice its width; not to be changed."""
    folder = tmp_path_factory.mktemp("widened")
    base = save_checkpoint(FAMILIES["bert"]().base_model, folder / "narrow")
    asked = config(
        folder / "store", "model.name=mine", f"model.path={base}", "model.widen=2", "model.widen_noise=0.5",
        "optim.lr=1e-2", "train.steps=3",
    )  # fmt: skip
    run(asked)
    return plan(asked).directory


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT and transformers
@pytest.mark.parametrize("merged", [True, False])
def test_an_export_of_a_widened_backbone_is_whole_for_no_one_else_has_that_backbone(
    merged: bool, widened: RunDirectory, tmp_path: Path
) -> None:
    """The readme's code loads it; an adapter brings its backbone, and names it."""
    directory = tmp_path / "out"
    export(widened, directory, merged=merged, dtype="fp32")
    base = directory if merged else directory / "base"
    sizes = json.loads((base / "config.json").read_text())
    assert (sizes["hidden_size"], sizes["num_attention_heads"], sizes["intermediate_size"]) == (64, 8, 96)
    if not merged:
        adapter = json.loads((directory / "adapter_config.json").read_text())
        assert adapter["base_model_name_or_path"] == str(base)
    readme = (directory / "README.md").read_text()
    assert "narrow at 2 times its width, trained with loralab" in readme and "model.widen=2" in readme
    names: dict[str, Any] = {}
    exec(readme.split("```python\n")[1].split("```")[0], names)
    assert np.abs(logits_of(names["model"].eval(), names["tokenizer"]) - stored(widened)).max() < 1e-5
    ours, tokenizer = load_run(widened.path)
    assert np.abs(logits_of(ours, tokenizer) - stored(widened)).max() < 1e-5
