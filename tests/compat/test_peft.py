"""PEFT's encoders of virtual tokens have the declared shapes."""

import torch
from torch import nn

from loralab.compat.peft import prefix_encoder, prompt_embedding, prompt_encoder

AT = torch.arange(5)


def test_each_encoder_makes_a_vector_for_every_virtual_token() -> None:
    for hidden in (None, 7):
        made = prefix_encoder(tokens=5, layers=3, heads=2, width=4, hidden=hidden)(AT)
        assert made.shape == (5, 3 * 2 * 2 * 4)
    assert prompt_encoder(tokens=5, width=8, hidden=6)(AT).shape == (5, 8)
    table = nn.Embedding(20, 8)
    rows = prompt_embedding(tokens=5, table=table)(AT)
    assert rows.shape == (5, 8) and all(bool((row == table.weight).all(1).any()) for row in rows)
