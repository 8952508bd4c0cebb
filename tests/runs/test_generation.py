"""Tests of TextObjective: a small decoder and an encoder-decoder train, generate, and are scored on text."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from loralab.errors import UserError
from loralab.runs.console import Console
from loralab.runs.load import load_run
from loralab.runs.run import run
from loralab.store.predictions import packed_correct, unpacked
from loralab.store.record import PausedRecord, Record
from tests.small_runs import config, cut_off, outcome

MODELS = ("tiny_decoder", "tiny_seq2seq")


@pytest.fixture
def parrot(tmp_path: Path) -> list[str]:
    """A task of pairs that is learned at once: every answer is `ok`."""
    rows = [{"said": f"say ok {i}", "answer": "ok"} for i in range(60)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        "task=pairs", f"task.files.train={path}", "task.text=[said]", "task.label=answer", "task.train_rows=null",
        "task.eval_rows=null",
        "task.validation_share=0.2", "task.test_share=0.2", "task.split_seed=1",
        "method=full", "optim.lr=1e-2", "train.precision=fp32", "generate.max_new_tokens=6", "generate.separator='='",
    ]  # fmt: skip


def record_of(store: Path, *overrides: str) -> tuple[Record | PausedRecord, Path]:
    record = run(config(store, *overrides))
    (directory,) = store.glob("runs/*")
    return record, directory


@pytest.mark.parametrize("model", MODELS)
def test_a_model_learns_to_answer_and_its_record_says_so(tmp_path: Path, parrot: list[str], model: str) -> None:
    record, directory = record_of(tmp_path / "store", f"model={model}", *parrot, "train.steps=40")
    last = record["metrics"]["test"]["last"]
    assert record["metrics"]["primary"] == "exact_match" and last["exact_match"] == 1.0
    table = pd.read_parquet(directory / "predictions.parquet")
    assert set(table["text"]) == {"ok"} and table["correct"].all() and record["rows"]["test"] == 12
    assert last["loss"] == pytest.approx(table[table["at"] == "last"]["loss"].sum() / table["tokens"][:12].sum())
    assert unpacked(packed_correct(directory / "predictions.parquet")).tolist() == [True] * 12


@pytest.mark.parametrize("model", MODELS)
def test_generation_repeats_under_a_seed_and_resumes_to_the_byte(
    tmp_path: Path, parrot: list[str], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (f"model={model}", *parrot, "method=lora", "optim.lr=1e-2", "generate.beams=2")
    run(config(tmp_path / "one", *options))
    run(config(tmp_path / "two", *options))
    assert outcome(tmp_path / "one") == outcome(tmp_path / "two")
    cut_off(config(tmp_path / "cut", *options), monkeypatch, at=7)
    run(config(tmp_path / "cut", *options))
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "one")
    one, cut = (next((tmp_path / name).glob("runs/*/answers.json")).read_bytes() for name in ("one", "cut"))
    assert one == cut


def test_a_few_test_questions_are_answered_before_and_after_training(tmp_path: Path, parrot: list[str]) -> None:
    _, trained = record_of(tmp_path / "trained", "model=tiny_decoder", *parrot, "train.steps=6")
    _, untrained = record_of(tmp_path / "untrained", "model=tiny_decoder", *parrot, "train.steps=0")
    entries = json.loads((trained / "answers.json").read_text())
    assert len({entry["row"] for entry in entries}) == 3
    for name, directory in (("before", untrained), ("after", trained)):
        table = pd.read_parquet(directory / "predictions.parquet")
        texts = table[table["at"] == "last"].set_index("row")[["text", "correct"]]
        for entry in entries:
            text, right = texts.loc[entry["row"]]
            assert entry[name] == {"answer": text, "correct": right}
    assert {entry["question"] for entry in entries} <= {f"say ok {i}" for i in range(60)}
    assert [entry["after"] for entry in json.loads((untrained / "answers.json").read_text())] == [None] * 3


def test_answers_before_training_leave_its_bytes_alone(
    tmp_path: Path, parrot: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("model=tiny_decoder", *parrot, "method=lora", "optim.lr=1e-2", "lora.dropout=0.1")
    run(config(tmp_path / "with", *options))
    monkeypatch.setattr("loralab.runs.run._answer_untrained", lambda *_: None)
    run(config(tmp_path / "without", *options))
    assert outcome(tmp_path / "with") == outcome(tmp_path / "without")


def test_a_finished_run_shows_the_answers_of_its_training(tmp_path: Path, parrot: list[str]) -> None:
    options = ("model=tiny_decoder", *parrot, "train.steps=6")
    shown = []
    for _ in range(2):
        out = io.StringIO()
        run(config(tmp_path, *options), console=Console(io.StringIO(), out))
        text = out.getvalue()
        shown.append(text[text.index("test questions") : text.index("success")])
    assert shown[0] == shown[1] and shown[0].count("    after ") == 3


def test_the_perplexity_of_movie_dialog_is_the_exp_of_the_loss_and_its_lowest_step_the_best(tmp_path: Path) -> None:
    options = ("model=tiny_decoder", "task=movie_dialog", "generate.max_new_tokens=4", "train.eval_every=4")
    record, directory = record_of(tmp_path / "store", *options, "train.max_length=128")
    last, best = (record["metrics"]["validation"][at] for at in ("last", "best"))
    assert list(last) == ["step", "perplexity", "chrf", "loss"]
    assert last["perplexity"] == pytest.approx(np.exp(last["loss"]))
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    found = [line["values"]["perplexity"] for line in lines if line["split"] == "validation"]
    assert len(found) == 3 and best["perplexity"] == min(found)


def test_two_threads_learn_what_one_does(tmp_path: Path, parrot: list[str]) -> None:
    """Targets differ in length, so that halves of a batch hold unequal numbers of target tokens."""
    path = tmp_path / "uneven.jsonl"
    path.write_text("".join(json.dumps({"said": f"{i}", "answer": "ab" * (i % 5 + 1)}) + "\n" for i in range(40)))
    options = ("model=tiny_decoder", *parrot, f"task.files.train={path}", "optim.lr=1e-3")
    losses = []
    for threads in (1, 2):
        _, directory = record_of(tmp_path / str(threads), *options, f"train.threads={threads}")
        lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
        losses.append([line["values"]["loss"] for line in lines if line["split"] == "train"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_a_loaded_run_answers_as_the_run_did(tmp_path: Path, parrot: list[str]) -> None:
    _, directory = record_of(tmp_path / "store", "model=tiny_decoder", *parrot, "train.steps=40")
    model, tokenizer = load_run(directory)
    found = model.generate(**tokenizer("say ok 3=", return_tensors="pt"), max_new_tokens=6, do_sample=False)
    assert tokenizer.decode(found[0], skip_special_tokens=True).endswith("=ok")


def test_an_encoder_cannot_answer(tmp_path: Path, parrot: list[str]) -> None:
    with pytest.raises(UserError, match=r"^model\.name: .* an encoder, which does not generate; "):
        run(config(tmp_path / "store", *parrot))


@pytest.mark.parametrize(("method", "longest"), [("full", 256), ("prompt", 236)])
def test_a_decoder_has_room_for_the_text_and_its_answer(
    tmp_path: Path, parrot: list[str], method: str, longest: int
) -> None:
    """Of the tiny decoder's 256 positions, 20 go to the virtual tokens of method=prompt."""
    options = ("model=tiny_decoder", *parrot, f"method={method}", "train.steps=2", "train.eval_every=2")
    record, _ = record_of(tmp_path / "fits", *options, f"train.max_length={longest - 6}")
    assert record["status"] == "success"
    refused = (
        rf"^train\.max_length \+ generate\.max_new_tokens: got {longest - 5} \+ 6; .* at most {longest} tokens, "
        r"text and answer together; lower one of the two$"
    )
    with pytest.raises(UserError, match=refused):
        run(config(tmp_path / "long", *options, f"train.max_length={longest - 5}"))


def test_an_encoder_decoder_writes_its_answer_beside_the_text(tmp_path: Path, parrot: list[str]) -> None:
    options = ("model=tiny_seq2seq", *parrot, "train.steps=2", "train.eval_every=2", "train.max_length=256")
    assert record_of(tmp_path / "store", *options)[0]["status"] == "success"


@pytest.mark.parametrize("model", MODELS)
def test_an_adapters_frozen_weights_are_those_of_the_model_that_answers(
    tmp_path: Path, parrot: list[str], model: str
) -> None:
    from loralab.inspect.updates import find_adapter

    _, directory = record_of(tmp_path / "store", f"model={model}", *parrot, "method=lora", "train.steps=2")
    adapter = find_adapter(tmp_path / "store", directory.name)
    found = adapter.weights()
    assert found.keys() == adapter.updates.keys() and found
    for name, update in adapter.updates.items():
        assert found[name].shape == (len(update.B), update.A.shape[1])
