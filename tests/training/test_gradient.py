"""The gradient in micro-batches equals the batch's, and has the same bits on any number of threads."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from loralab.training.gradient import backward
from loralab.training.threads import Workers
from tests.families import FAMILIES
from tests.generators import GENERATORS, pairs

SCALER = torch.amp.GradScaler("cpu", enabled=False)


def batch(rows: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 90, (rows, 9), generator=generator)
    mask = (torch.arange(9) < torch.randint(3, 10, (rows, 1), generator=generator)).long()
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.arange(rows) % 2}


def gradients(model: nn.Module, rows: int, parts: int, threads: int = 2) -> tuple[float, list[Tensor]]:
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.grad = None
    with Workers(threads) as workers:
        loss = backward(
            model,
            batch(rows),
            loss_of=cross_entropy,
            scaler=SCALER,
            parameters=parameters,
            workers=workers,
            parts=parts,
        )
    return loss.item(), [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize(("rows", "parts"), [(8, 2), (7, 2), (5, 3), (1, 2)])
def test_shards_give_the_gradient_of_the_batch(family: str, rows: int, parts: int) -> None:
    model = FAMILIES[family]().train()
    loss, expected = gradients(model, rows, 1)
    sharded_loss, sharded = gradients(model, rows, parts)
    assert sharded_loss == pytest.approx(loss, abs=1e-6)
    for got, wanted in zip(sharded, expected, strict=True):
        torch.testing.assert_close(got, wanted, atol=2e-6, rtol=1e-4)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    model = FAMILIES["bert"]().train()
    first = gradients(model, 11, 3, threads=1)
    for threads in (1, 2, 2, 3, 5):
        again = gradients(model, 11, 3, threads)
        assert again[0] == first[0]
        assert all(torch.equal(a, b) for a, b in zip(again[1], first[1], strict=True))


def test_gradients_add_up_over_two_calls() -> None:
    model = FAMILIES["bert"]().train()
    parameters = list(model.parameters())
    _, once = gradients(model, 6, 2)
    once = [g.clone() for g in once]
    with Workers(2) as workers:
        backward(model, batch(6), loss_of=cross_entropy, scaler=SCALER, parameters=parameters, workers=workers, parts=2)
    for parameter, single in zip(parameters, once, strict=True):
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, 2 * single)


def target_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
@pytest.mark.parametrize(("rows", "parts"), [(6, 2), (5, 3), (1, 2)])
def test_shards_of_texts_are_weighed_by_their_target_tokens(family: str, rows: int, parts: int) -> None:
    model = GENERATORS[family]().double()
    parameters = list(model.parameters())
    texts = pairs(rows, seq2seq=family == "t5")(np.arange(rows))

    def gradient(parts: int) -> list[Tensor]:
        model.zero_grad()
        with Workers(2) as those:
            loss = backward(
                model, texts, loss_of=target_loss, scaler=SCALER, parameters=parameters, workers=those, parts=parts
            )
        return [loss, *(torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters)]

    tokens = (texts["labels"] != -100).sum(1)
    assert rows == 1 or len({int(tokens[i::parts].sum()) for i in range(parts)}) > 1, "equal shards would show nothing"
    for got, wanted in zip(gradient(parts), gradient(1), strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-4)  # logits are fp32 in the loss
