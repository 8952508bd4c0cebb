"""Ranks: their parts make up the batch, their gradient is the batch's, and they agree; real processes over gloo."""

import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed
from torch.nn.functional import cross_entropy

from loralab.errors import UserError
from loralab.training import distributed as ranks_module
from loralab.training.distributed import ALONE, Ranks, join, launched, let_first_speak, refuse_multirun, terms
from loralab.training.evaluate import predict
from loralab.training.gradient import backward
from loralab.training.signals import Interrupted, Interrupts
from loralab.training.threads import Workers
from tests.families import FAMILIES
from tests.generators import GENERATORS, pairs
from tests.training.test_gradient import SCALER, batch, target_loss

COUNT = 3


def _rank(index: int, directory: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{directory}/met", rank=index, world_size=COUNT)
    ranks = Ranks(index, COUNT, distributed.new_group(backend="gloo"))
    heard = {"computed": compute(ranks), "said": converse(ranks, directory), "left": leave(ranks, directory)}
    heard["missed"] = desert(ranks)  # the last batch
    torch.save(heard, directory / f"{index}.pt")


def test_terms_are_examples_or_target_tokens() -> None:
    assert terms(torch.tensor([0, 2, 1])) == 3
    assert terms(torch.tensor([0.5, -100.0])) == 2  # a regression's label may be any number
    assert terms(torch.tensor([[-100, 4, 2], [-100, -100, 2]])) == 3


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Results, messages and missed calls of each of COUNT real processes, started once because starting is slow."""
    directory = tmp_path_factory.mktemp("ranks")
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_rank, args=(index, directory)) for index in range(COUNT)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=240)
    assert [process.exitcode for process in processes] == [0] * COUNT
    return [torch.load(directory / f"{index}.pt") for index in range(COUNT)]


def gradients(rows: int, ranks: Ranks) -> list[torch.Tensor]:
    """The loss and every gradient of a batch of this many rows."""
    model = FAMILIES["bert"]().train()
    parameters = list(model.parameters())
    with Workers(1) as workers:
        loss = backward(
            model,
            batch(rows),
            loss_of=cross_entropy,
            scaler=SCALER,
            parameters=parameters,
            workers=workers,
            parts=1,
            ranks=ranks,
        )
    return [loss, *(p.grad for p in parameters if p.grad is not None)]


def text_gradients(rows: int, ranks: Ranks) -> list[torch.Tensor]:
    """The same for a batch of texts, with targets of 3 to 8 tokens."""
    model = GENERATORS["llama"]()
    parameters = list(model.parameters())
    with Workers(1) as workers:
        loss = backward(
            model,
            pairs(rows, seq2seq=False)(np.arange(rows)),
            loss_of=target_loss,
            scaler=SCALER,
            parameters=parameters,
            workers=workers,
            parts=1,
            ranks=ranks,
        )
    return [loss, *(p.grad for p in parameters if p.grad is not None)]


def predictions(ranks: Ranks) -> tuple[torch.Tensor, int]:
    """The logits of 5 batches, shared unequally by 3 ranks, and the calls of `check`."""
    every = batch(11)
    calls = []
    with Workers(1) as workers:
        logits = predict(
            FAMILIES["bert"]().eval(),
            [torch.arange(11)[i::5].numpy() for i in range(5)],
            lambda at: {name: value[at] for name, value in every.items()},
            rows=11,
            check=lambda: calls.append(ranks.of_all(1)),  # would hang or mix up results if the calls differed
            workers=workers,
            ranks=ranks,
        )
    return torch.from_numpy(logits), len(calls)


def compute(ranks: Ranks) -> Any:
    of_texts = {rows: text_gradients(rows, ranks) for rows in (7, 1)}
    return {rows: gradients(rows, ranks) for rows in (8, 7, 2, 1)}, of_texts, predictions(ranks)


@pytest.mark.slow
def test_ranks_give_the_gradient_of_the_batch_also_where_it_does_not_divide(heard: list[dict[str, Any]]) -> None:
    results = [each["computed"] for each in heard]
    logits, calls = predictions(ALONE)
    assert calls == 5
    for by_rows, of_texts, (its_logits, its_calls) in results:
        assert torch.equal(its_logits, logits)
        assert its_calls == 2
        for rows, found in by_rows.items():
            for got, wanted in zip(found, gradients(rows, ALONE), strict=True):
                torch.testing.assert_close(got, wanted, atol=2e-6, rtol=1e-4)
            assert all(map(torch.equal, found, results[0][0][rows]))  # bit for bit, or the weights drift apart
        for rows, found in of_texts.items():
            for got, wanted in zip(found, text_gradients(rows, ALONE), strict=True):
                torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


def converse(ranks: Ranks, directory: Path) -> Any:
    told: dict[str, Any] = {"first": ranks.of_first({"at": ranks.index}), "all": ranks.of_all(ranks.index)}
    path = directory / "cached"
    with ranks.in_turn():
        told["found"] = path.exists()
        time.sleep(0.2)
        path.touch()

    def mistaken(at: int) -> None:
        with ranks.in_turn():
            if ranks.index == at:
                raise UserError(f"rank {at} was wrong")

    for at in range(COUNT):
        try:
            ranks.agreed(lambda at=at: mistaken(at))  # type: ignore[misc]
        except UserError as error:
            told[f"mistake {at}"] = str(error)
    told["agreed"] = ranks.agreed(lambda: ranks.index * 10)
    interrupts = Interrupts()
    told["due"] = [ranks.agree(interrupts, due=ranks.index == at) for at in (0, 1)]
    interrupts.noted = 15 if ranks.index == 1 else None
    try:
        ranks.agree(interrupts)
    except Interrupted as interrupt:
        told["status"] = interrupt.status
    return told


@pytest.mark.slow
def test_what_one_rank_knows_all_learn(heard: list[dict[str, Any]]) -> None:
    for index, each in enumerate(heard):
        assert each["said"] == {
            "first": {"at": 0},
            "all": [0, 1, 2],
            "found": index > 0,  # rank 0 goes first
            "mistake 0": "rank 0 was wrong",
            "mistake 1": "rank 1 was wrong",
            "mistake 2": "rank 2 was wrong",
            "agreed": index * 10,
            "due": [True, False],  # only rank 0 decides
            "status": 143,
        }


def leave(ranks: Ranks, directory: Path) -> Any:
    os.environ.update(WORLD_SIZE=str(COUNT), LOCAL_WORLD_SIZE=str(COUNT))
    ranks_module._joined = lambda _: ranks  # type: ignore[assignment]  # already joined, through a file
    try:
        with join("cpu"):
            if ranks.leads:
                time.sleep(0.3)
                (directory / "saved").touch()
            raise Interrupted(15)
    except Interrupted:
        return (directory / "saved").exists()


@pytest.mark.slow
def test_nobody_leaves_an_interrupted_run_before_rank_0_has_saved(heard: list[dict[str, Any]]) -> None:
    assert [each["left"] for each in heard] == [True] * COUNT


def desert(ranks: Ranks) -> Any:
    if ranks.index == 1:
        return "left", 0.0
    began = time.monotonic()
    try:
        ranks.of_all(None)
    except (RuntimeError, SystemExit) as error:
        return f"{type(error).__name__}: {error}", time.monotonic() - began


@pytest.mark.slow
def test_who_dies_is_missed_at_once(heard: list[dict[str, Any]]) -> None:
    words, seconds = zip(*(each["missed"] for each in heard), strict=True)
    assert words == (
        "RuntimeError: another process of this run has ended; its own output says why",
        "left",
        "SystemExit: 1",
    )
    assert max(seconds) < 30


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("rows", [1, 4, 7])
def test_the_parts_are_the_batch(rows: int, count: int) -> None:
    whole = {"labels": torch.arange(rows), "x": torch.arange(rows) * 2}
    parts = [Ranks(index, count).part(whole) for index in range(count)]
    assert sum(share for _, share in parts) == pytest.approx(1)
    seen = [int(y) for part, share in parts if share for y in part["labels"]]
    assert sorted(seen) == list(range(rows))
    for part, share in parts:
        assert torch.equal(part["x"], part["labels"] * 2)
        assert len(part["labels"]) == max(1, round(share * rows))


def test_seeds_are_the_runs_own_on_rank_0_and_others_elsewhere() -> None:
    seeds = [Ranks(index, 4).seed(seed) for index in range(4) for seed in (0, 1)]
    assert seeds[:2] == [0, 1]
    assert len(set(seeds)) == 8


def test_one_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")  # some clusters set it for every process
    assert launched() == 1
    refuse_multirun()
    let_first_speak()
    with join("auto") as ranks:
        assert ranks is ALONE
        assert ranks.of_first("x") == "x"
        assert ranks.of_all("x") == ["x"]


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes this process look like the second of two that torchrun started."""
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("second")
def test_what_several_processes_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched() == 2
    with pytest.raises(UserError, match="torchrun's 2 processes train one run together"):
        refuse_multirun()
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(UserError, match=r"takes accelerate; run: pip install accelerate$"), join("cpu"):
        pass


@pytest.mark.usefixtures("second")
@pytest.mark.parametrize(
    ("asked", "place", "devices", "line"),
    [
        ("cuda:1", "cuda:1", 2, "train.device: got 'cuda:1', and torchrun started 2 processes here; use cuda or cpu"),
        ("auto", "mps", 0, "train.device: got 'auto', and torchrun started 2 processes here; use cuda or cpu"),
        ("auto", "cuda", 1, "torchrun started 2 processes on 1 GPU; start one for each: --nproc-per-node=gpu"),
    ],
)
def test_each_rank_of_a_machine_has_its_own_device(
    asked: str, place: str, devices: int, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loralab.device.pick_device", lambda _: torch.device(place))
    monkeypatch.setattr("torch.cuda.device_count", lambda: devices)
    with pytest.raises(UserError) as caught, join(asked):
        pass
    assert str(caught.value) == line


@pytest.mark.usefixtures("second")
def test_the_second_waits_for_the_word_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks_module, "FIRST_WORD", 0.2)
    began = time.monotonic()
    let_first_speak()
    assert time.monotonic() - began >= 0.2
    monkeypatch.setenv("LOCAL_RANK", "0")
    began = time.monotonic()
    let_first_speak()
    assert time.monotonic() - began < 0.2
