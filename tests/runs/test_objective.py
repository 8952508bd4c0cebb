"""Tests of objectives: batches, predictions, scores and the file of predictions are consistent."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from loralab import tasks
from loralab.runs.generation import TextObjective
from loralab.runs.objective import LabelObjective, Predictor
from loralab.tasks.splits import Pairs, RawTask, Texts
from loralab.tasks.tokenise import Split
from loralab.tasks.tokenise_pairs import PairSplit
from loralab.training.distributed import ALONE
from loralab.training.threads import Workers


class Echo(torch.nn.Module):
    """Logits that are a row's first token id, in the class of its last one."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> object:
        last = attention_mask.sum(1) - 1
        logits = torch.zeros(len(input_ids), 3)
        logits[torch.arange(len(input_ids)), input_ids[torch.arange(len(input_ids)), last] % 3] = 5.0
        return type("Output", (), {"logits": logits})()


def labels(kind: tasks.Kind = "classification") -> LabelObjective:
    lengths = np.array([3, 1, 2, 4])
    ids = np.array([7, 7, 0, 1, 7, 2, 7, 7, 7, 1], dtype=np.int32)
    truth = np.array([0, 1, 2, 0]) if kind == "classification" else np.array([0.5, 1, 2, 3], dtype=np.float32)
    split = Split(ids, np.concatenate([[0], np.cumsum(lengths)]), None, lengths, truth, np.arange(4))
    texts = Texts([("a",)] * 4, truth, np.arange(4))
    metrics = ("accuracy",) if kind == "classification" else ("pearson", "mse")
    task = RawTask("mine", kind, ("x", "y", "z") if kind == "classification" else None, {"test": texts}, metrics)
    return LabelObjective(task, {"test": split}, pad_id=9, device=torch.device("cpu"))


def test_predictions_are_in_the_splits_order_whatever_the_batches() -> None:
    objective = labels()
    with Workers(2) as workers:
        logits = objective.predict("test", Predictor(Echo(), lambda: None, workers, ALONE))
    assert logits.argmax(1).tolist() == [0, 1, 2, 1]
    assert objective.rows() == {"test": 4} and objective.lengths("test").tolist() == [3, 1, 2, 4]
    assert objective.metric == "accuracy" and objective.scores("test", logits)["accuracy"] == 0.75


def test_the_scores_loss_is_the_loops_on_the_whole_split() -> None:
    objective = labels()
    logits = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    batch = objective.batch("test", np.arange(4))
    assert objective.scores("test", logits)["loss"] == objective.loss(torch.from_numpy(logits), batch["labels"]).item()


def test_a_regression_reads_one_number_and_its_loss_is_the_squared_error() -> None:
    objective = labels("regression")
    exact = np.array([[0.5], [1], [2], [3]], dtype=np.float32)
    assert objective.scores("test", exact) == pytest.approx({"pearson": 1.0, "mse": 0.0, "loss": 0.0})
    assert objective.scores("test", exact + 1)["loss"] == 1.0


def test_where_a_logit_is_not_finite_no_score_is() -> None:
    logits = np.array([[1, -np.inf, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]], dtype=np.float32)
    assert labels().scores("test", logits) == {"accuracy": None, "loss": None}


def test_the_start_of_a_regression_is_the_largest_loss_of_predicting_zero() -> None:
    objective = labels("regression")
    batch = torch.from_numpy(objective.splits["test"].labels)
    each = [float(objective.loss(torch.zeros(1, 1), batch[i : i + 1])) for i in range(len(batch))]
    assert objective.start("test") == pytest.approx(max(each)) and max(each) > min(each)
    assert labels().start("test") == 0.0


def test_the_file_holds_the_predictions(tmp_path: Path) -> None:
    objective = labels()
    logits = np.eye(4, 3, dtype=np.float32)
    objective.write(tmp_path / "predictions.parquet", {"last": {"test": logits}})
    table = pd.read_parquet(tmp_path / "predictions.parquet")
    assert np.stack(table["logits"].to_list()).tolist() == logits.tolist() and table["label"].tolist() == [0, 1, 2, 0]


class Says(torch.nn.Module):
    """An encoder-decoder of 8 tokens that answers every text with 3 4 5 and eos."""

    config = SimpleNamespace(is_encoder_decoder=True, decoder_start_token_id=0)

    def forward(self, decoder_input_ids: torch.Tensor, **_inputs: torch.Tensor) -> object:
        return SimpleNamespace(logits=torch.zeros(*decoder_input_ids.shape, 8))

    def generate(self, input_ids: torch.Tensor, **_settings: object) -> torch.Tensor:
        return torch.tensor([[0, 3, 4, 5, 1]] * len(input_ids))


def test_an_answer_keeps_the_spaces_that_a_tokenizers_clean_up_would_take() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1, "<unk>": 2, "a": 3, ",": 4, "b": 5}, "<unk>"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", clean_up_tokenization_spaces=True
    )
    assert tokenizer.decode([3, 4, 5]) == "a, b"
    pairs = Pairs(["x"], [("a , b",)], np.arange(1))
    ends = np.array([0, 1])
    split = PairSplit(np.array([2], dtype=np.int32), ends, np.array([1], dtype=np.int32), ends, ends[1:], np.arange(1))
    task = RawTask("mine", "generation", None, {"test": pairs}, ("exact_match",))
    objective = TextObjective(
        task, {"test": split}, tokenizer, seq2seq=True, at_targets=False, start_id=0, beams=1, length_penalty=1.0,
        max_new_tokens=8, device=torch.device("cpu"),
    )  # fmt: skip
    predicted = objective.predict("test", Predictor(Says(), lambda: None, Workers(1), ALONE))
    assert predicted.texts == ["a , b"] and objective.scores("test", predicted)["exact_match"] == 1.0
