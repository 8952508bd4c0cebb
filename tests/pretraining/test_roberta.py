"""Tests of RoBERTa: models differ only in width, and AtPositions equals the whole model's output."""

import pytest
import torch

from loralab.pretraining.roberta import AtPositions, roberta

SETTINGS = {"layers": 2, "vocabulary": 300, "length": 16, "seed": 0}


def test_logits_at_positions_are_those_of_the_whole_model() -> None:
    model = roberta(64, **SETTINGS)
    ids = torch.randint(5, 300, (3, 16), generator=torch.Generator().manual_seed(1))
    positions = torch.tensor([[0, 3], [5, 15], [7, 8]])
    with torch.inference_mode():
        some, whole = AtPositions(model)(ids, positions).logits, model(ids).logits
    rows = torch.arange(3).unsqueeze(1)
    torch.testing.assert_close(some, whole[rows, positions])


@pytest.mark.parametrize("width", [64, 128])
def test_heads_are_32_wide_and_inner_maps_four_times_the_width(width: int) -> None:
    config = roberta(width, **SETTINGS).config
    assert config.hidden_size // config.num_attention_heads == 32
    assert (config.intermediate_size, config.num_hidden_layers) == (4 * width, 2)


def test_outputs_of_a_map_keep_their_size_at_every_width() -> None:
    """The variance of W x is n times that of W, for x of entries of order 1."""
    found = [width * roberta(width, **SETTINGS).roberta.encoder.layer[0].attention.self.query.weight.var().item()
             for width in (64, 256)]  # fmt: skip
    assert found == pytest.approx([512 * 0.02**2] * 2, rel=0.05)


def test_a_seed_is_a_model() -> None:
    one, again = (roberta(32, **SETTINGS).state_dict() for _ in range(2))
    other = roberta(32, **SETTINGS | {"seed": 1}).state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["lm_head.dense.weight"], other["lm_head.dense.weight"])
