"""Decoding: the split's order, independence of the batch, greedy is the argmax, beams find more likely texts."""

import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from loralab.backbones.families import linear_maps
from loralab.methods.full import attach as attach_full
from loralab.methods.lora import attach, merge
from loralab.training import generate
from loralab.training.generate import decode
from loralab.training.threads import Workers
from tests.adapted import LORA, shake
from tests.families import PAD, VOCABULARY
from tests.generators import CAUSAL, EOS, GENERATORS, contexts

ROWS = 6
APART = [[i] for i in range(ROWS)]
TOGETHER = [[5, 0, 3], [2, 1, 4]]

families = pytest.mark.parametrize("family", GENERATORS)


def texts(
    model: Any, order: list[list[int]], *, beams: int = 1, eos: int = EOS, penalty: float = 1.0, threads: int = 1
) -> Any:
    with Workers(threads) as workers:
        return decode(
            model,
            [np.array(at) for at in order],
            contexts(ROWS, left=not model.config.is_encoder_decoder),
            rows=ROWS,
            beams=beams,
            length_penalty=penalty,
            max_new_tokens=8,
            eos_id=eos,
            pad_id=PAD,
            check=lambda: None,
            workers=workers,
        )


@families
@pytest.mark.parametrize("beams", [1, 3])
def test_a_row_is_written_alike_in_any_company_and_twice(family: str, beams: int) -> None:
    model = GENERATORS[family]()
    alone = texts(model, APART, beams=beams)
    assert len({tuple(row) for row in alone}) > 1, "all rows alike would show nothing"
    assert texts(model, TOGETHER, beams=beams) == texts(model, TOGETHER, beams=beams) == alone


@pytest.mark.parametrize("threads_from", [0, 10**9])
def test_threads_write_what_one_writes_and_a_small_model_has_one(
    threads_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = GENERATORS["llama"]()
    alone = texts(model, APART)
    monkeypatch.setattr(generate, "THREADED", threads_from)
    writers: set[str] = set()
    model.register_forward_pre_hook(lambda *_: writers.add(threading.current_thread().name))
    assert texts(model, APART, threads=2) == alone
    assert any(name.startswith("worker") for name in writers) == (threads_from == 0)


@families
def test_greedy_is_the_argmax_of_the_logits(family: str) -> None:
    model, seq2seq = GENERATORS[family](), family == "t5"
    for row, tokens in enumerate(texts(model, TOGETHER)):
        inputs = contexts(ROWS, left=False)(np.array([row]))
        written = [0] if seq2seq else inputs["input_ids"][0].tolist()
        for token in tokens:
            with torch.no_grad():
                if seq2seq:
                    logits = model(**inputs, decoder_input_ids=torch.tensor([written])).logits
                else:
                    logits = model(torch.tensor([written])).logits
            assert logits[0, -1].argmax() == token
            written.append(token)


@families
def test_what_follows_eos_is_dropped_and_no_row_waits_in_vain(family: str) -> None:
    model = GENERATORS[family]()
    free = texts(model, TOGETHER)
    eos = free[0][3]
    ended = [row[: row.index(eos)] if eos in row else row for row in free]
    assert ended != free
    assert texts(model, TOGETHER, eos=eos) == ended


@families
def test_beams_find_texts_that_are_no_less_likely(family: str) -> None:
    """No id is eos here, so all texts have eight tokens; a wide beam has at least greedy's log p for nearly all."""
    model = GENERATORS[family]()
    likelier = [
        b >= g - 1e-4
        for g, b in zip(*(told(model, texts(model, TOGETHER, beams=n, eos=VOCABULARY)) for n in (1, 8)), strict=True)
    ]
    assert sum(likelier) >= ROWS - 1
    assert texts(model, TOGETHER, beams=8, eos=VOCABULARY) != texts(model, TOGETHER, eos=VOCABULARY)


def told(model: Any, answers: list[list[int]]) -> list[float]:
    """The log p of each row's answer."""
    sums = []
    for row, tokens in enumerate(answers):
        inputs = contexts(ROWS, left=False)(np.array([row]))
        if model.config.is_encoder_decoder:
            inputs["decoder_input_ids"] = torch.tensor([[0, *tokens[:-1]]])
        else:
            ids = torch.tensor([[*inputs["input_ids"][0].tolist(), *tokens[:-1]]])
            inputs = {"input_ids": ids}
        with torch.no_grad():
            p = model(**inputs).logits[0, -len(tokens) :].log_softmax(-1)
        sums.append(p.gather(1, torch.tensor(tokens)[:, None]).sum().item())
    return sums


def test_a_larger_length_penalty_never_shortens() -> None:
    model = GENERATORS["t5"]()
    eos = texts(model, TOGETHER)[0][3]
    short, long = (sum(map(len, texts(model, TOGETHER, beams=4, eos=eos, penalty=p))) for p in (-2.0, 3.0))
    assert short < long


@families
def test_an_untrained_adapter_writes_what_the_backbone_writes_and_a_trained_one_does_not(family: str) -> None:
    expected = texts(GENERATORS[family](), TOGETHER)
    model = GENERATORS[family]().requires_grad_(False)
    attach(model, linear_maps(model), head=(), **LORA)
    assert texts(model, TOGETHER) == expected
    shake(model)
    trained = texts(model, TOGETHER)
    assert trained != expected
    assert trained == texts(model, APART)
    merge(model)
    assert texts(model, TOGETHER) == trained


@pytest.mark.parametrize("family", CAUSAL)
def test_a_wrapped_forward_still_knows_the_positions(family: str) -> None:
    """`generate` inspects the signature of `forward` to decide whether to pass positions; autocast must not hide it."""
    model = GENERATORS[family]()
    attach_full(model, head=(), device=torch.device("cpu"), dtype=torch.bfloat16)
    told_apart = sum(a != b for a, b in zip(texts(model, APART), texts(model, TOGETHER), strict=True))
    assert told_apart <= 1  # bf16's rounding depends on the batch's shape


def test_a_stop_leaves_the_model_training() -> None:
    model = GENERATORS["llama"]().train()

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode(
            model, [np.array([0])], contexts(ROWS, left=True), rows=1, beams=1, length_penalty=1.0,
            max_new_tokens=2, eos_id=EOS, pad_id=PAD, check=stop, workers=Workers(1),
        )  # fmt: skip
    assert isinstance(model, nn.Module) and model.training
