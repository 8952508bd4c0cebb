"""Tests of masking: equal counts per row, no special tokens, labels are the original tokens, BERT's proportions."""

import numpy as np
import pytest
import torch

from loralab.pretraining.masking import masked

MASK, SPECIALS, VOCABULARY = 4, 5, 1000
BLOCKS = np.random.default_rng(0).integers(SPECIALS, VOCABULARY, (200, 64)).astype(np.int32)
BLOCKS[:, ::7] = 2


def batch(*seed: int, blocks: np.ndarray = BLOCKS) -> dict[str, torch.Tensor]:
    return masked(blocks, share=0.25, vocabulary=VOCABULARY, specials=SPECIALS, mask_id=MASK, seed=seed)


def test_each_row_has_as_many_distinct_places_in_order_and_none_is_special() -> None:
    found = batch(0, 1)
    positions = found["positions"]
    assert positions.shape == found["labels"].shape == (200, 16)
    assert (positions.diff(dim=1) > 0).all()
    assert (found["labels"] == torch.from_numpy(BLOCKS).long().gather(1, positions)).all()
    assert (found["labels"] >= SPECIALS).all()


def test_only_the_chosen_places_change_and_by_the_three_shares() -> None:
    found = batch(0, 1)
    shown = found["input_ids"].gather(1, found["positions"])
    as_mask, kept = shown == MASK, shown == found["labels"]
    assert as_mask.float().mean().item() == pytest.approx(0.8, abs=0.03)
    assert kept.float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert (shown[~as_mask] >= SPECIALS).all() and (shown < VOCABULARY).all()
    restored = found["input_ids"].scatter(1, found["positions"], found["labels"])
    assert (restored == torch.from_numpy(BLOCKS)).all()


def test_a_seed_is_a_batch_and_another_seed_another() -> None:
    one, again, other = batch(0, 1), batch(0, 1), batch(0, 2)
    assert all((one[name] == again[name]).all() for name in one)
    assert not (one["positions"] == other["positions"]).all()


def test_every_place_is_chosen_about_as_often() -> None:
    blocks = np.full((2000, 20), SPECIALS, dtype=np.int32)
    counts = batch(3, blocks=blocks)["positions"].flatten().bincount(minlength=20).float()
    assert counts.min() > 430 and counts.max() < 570  # 500 on average, standard deviation 19


def test_a_row_of_special_tokens_is_refused() -> None:
    with pytest.raises(AssertionError, match="too few"):
        batch(0, blocks=np.zeros((1, 8), dtype=np.int32))
