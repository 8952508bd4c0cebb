"""train.fsdp, two processes over gloo: losses, answers and files are those of one process without shards."""

import json
from pathlib import Path

import pytest

from loralab.errors import UserError
from loralab.runs.run import run
from tests.runs.test_run import lines
from tests.small_runs import config
from tests.test_torchrun import files, finish, record, start

EXACT = ("train.precision=fp32", "optim.lr=1e-3")
ON = "train.fsdp=true"


def same(tmp_path: Path, *overrides: str) -> None:
    """A run in two shards has the losses, the answers, the identity and the files of one process's."""
    run(config(tmp_path / "one", *EXACT, *overrides))
    finish(tmp_path / "shards", *EXACT, *overrides, ON)
    for got, wanted in zip(lines(tmp_path / "shards"), lines(tmp_path / "one"), strict=True):
        assert got["values"] == pytest.approx(wanted["values"], abs=1e-5)
    found, expected = record(tmp_path / "shards"), record(tmp_path / "one")
    assert (found["run_id"], found["parameters"], found["ranks"]) == (expected["run_id"], expected["parameters"], 2)
    assert files(tmp_path / "shards") == files(tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("method=dora",),
        ("method=houlsby", "train.batch_size=5", "train.micro_batch_size=2", "model.gradient_checkpointing=true"),
        ("task=snippets", "train.batch_size=1", "lora.bias=all"),  # a rank without a row of its own
    ],
    ids=["dora", "micro-batches, layers computed twice", "regression"],
)
def test_a_sharded_run_has_the_losses_of_one_process(overrides: tuple[str, ...], tmp_path: Path) -> None:
    same(tmp_path, *overrides)


@pytest.mark.slow
def test_answers_of_unequal_length_do_not_leave_a_rank_waiting(tmp_path: Path) -> None:
    rows = [{"said": f"say it {i % 5} times", "answer": " ".join(["it"] * (i % 5 + 1))} for i in range(60)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = (
        "model=tiny_decoder", "task=pairs", f"task.files.train={tmp_path}/pairs.jsonl", "task.text=[said]",
        "task.label=answer", "task.validation_share=0.2", "task.test_share=0.2", "task.train_rows=null",
        "task.eval_rows=null", "generate.max_new_tokens=6", "generate.separator='='",
    )  # fmt: skip
    same(tmp_path, *own)
    seq2seq = start(tmp_path / "seq2seq", *own, "model=tiny_seq2seq", ON)
    assert seq2seq.status() != 0 and "error: train.fsdp: got true, and tiny_seq2seq is an enc" in seq2seq.text()


@pytest.mark.slow
def test_a_sharded_run_that_is_stopped_goes_on_without_shards(tmp_path: Path) -> None:
    start(tmp_path / "cut", *EXACT, ON, "train.pause_at=6").ends()
    assert record(tmp_path / "cut")["status"] == "paused"
    run(config(tmp_path / "cut", *EXACT))
    run(config(tmp_path / "one", *EXACT))
    for got, wanted in zip(lines(tmp_path / "cut"), lines(tmp_path / "one"), strict=True):
        assert got["values"] == pytest.approx(wanted["values"], abs=1e-5)


def test_one_process_has_no_one_to_share_the_weights_with(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^train\.fsdp: got true, and one process trains; .*torchrun"):
        run(config(tmp_path, ON))
