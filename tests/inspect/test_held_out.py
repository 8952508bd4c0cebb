"""Losses of held-out text are transformers' own, padding changes none, and an adapter of zeros is the backbone."""

from typing import Any

import numpy as np
import pytest
import torch

from loralab import tasks
from loralab.errors import UserError
from loralab.inspect.held_out import backbone_of, prose, text_losses
from loralab.methods.lora import lora_modules
from loralab.runs.load import load_run
from loralab.runs.run import run
from loralab.store.run_directory import RunDirectory
from loralab.tasks import TaskSettings
from tests.small_runs import config

TEXTS = ["A short one.", "Some more words, with a comma; and an end.", "Ends early", "x" * 200]
SETTINGS = ("model=tiny_decoder", "task=sql", "train.max_length=128", "train.precision=fp32", "train.steps=3")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    store = tmp_path_factory.mktemp("sql")
    few = ("task.train_rows=16", "task.eval_rows=4", "generate.max_new_tokens=2", "train.eval_every=3")
    run(config(store, *SETTINGS, *few, "optim.lr=1e-2"))
    (path,) = (store / "runs").iterdir()
    return RunDirectory(path)


def test_the_losses_are_those_of_transformers_text_by_text(trained: RunDirectory) -> None:
    model, tokenizer = load_run(trained.path)
    sums, numbers = text_losses(model, tokenizer, TEXTS, tokens=64)
    for text, total, number in zip(TEXTS, sums, numbers, strict=True):
        ids: Any = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"][:64]])
        with torch.inference_mode():
            alone = float(model(input_ids=ids, labels=ids).loss)
        assert number == ids.shape[1] - 1
        assert total / number == pytest.approx(alone, rel=1e-5)


def test_an_adapter_whose_b_is_zero_has_the_losses_of_the_backbone(trained: RunDirectory) -> None:
    model, tokenizer = load_run(trained.path)
    learned, _ = text_losses(model, tokenizer, TEXTS, tokens=64)
    for module in lora_modules(model).values():
        for factors in module.factors().values():
            factors.B.data.zero_()
    zero, _ = text_losses(model, tokenizer, TEXTS, tokens=64)
    before, _ = text_losses(*backbone_of(trained), TEXTS, tokens=64)
    np.testing.assert_allclose(zero, before, rtol=1e-6)
    assert (np.abs(learned - before) > 1e-3).all()


def test_the_prose_is_that_of_imdbs_test_split() -> None:
    assert prose(3) == [text for (text,) in tasks.read(TaskSettings(name="imdb")).splits["test"].texts[:3]]


def test_a_classifier_has_no_probabilities_of_text(finished: RunDirectory) -> None:
    with pytest.raises(UserError, match=r"rotten_tomatoes trains a classifier.*allowed: .*sql"):
        backbone_of(finished)
