"""What a loss is a mean of."""

import torch
from loralab.training.terms import terms


def test_terms_are_examples_or_target_tokens() -> None:
    assert terms(torch.tensor([0, 2, 1])) == 3
    assert terms(torch.tensor([0.5, -100.0])) == 2  # a regression's label may be any number
    assert terms(torch.tensor([[-100, 4, 2], [-100, -100, 2]])) == 3
