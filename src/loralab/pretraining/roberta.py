"""RoBERTa with random weights: models of different width differ in nothing else.

4 layers, heads of width 32, inner maps of 4 n, post-layer-norm, tied output embeddings (Liu et al. 2019). Weights are
drawn with a standard deviation of .02 at n = 512 and as 1 / sqrt(n) elsewhere, so that a map's outputs keep their size.
"""

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from loralab.config.pretrain import HEAD_WIDTH

if TYPE_CHECKING:
    from transformers import RobertaForMaskedLM

__all__ = ["AtPositions", "roberta"]

_STD, _STD_WIDTH = 0.02, 512
_PADDING = 1  # the padding id; RoBERTa's positions start at padding id + 1


class AtPositions(nn.Module):
    """A masked language model with logits at chosen positions only, as its loss needs no others."""

    def __init__(self, model: "RobertaForMaskedLM") -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, positions: Tensor) -> Any:
        """logits (rows, k, vocabulary) of blocks (rows, length) without padding at positions (rows, k)."""
        hidden_btd = self.model.roberta(input_ids).last_hidden_state
        chosen = positions.unsqueeze(-1).expand(-1, -1, hidden_btd.shape[-1])
        return SimpleNamespace(logits=self.model.lm_head(hidden_btd.gather(1, chosen)))


def roberta(width: int, *, layers: int, vocabulary: int, length: int, seed: int) -> "RobertaForMaskedLM":
    """The model with random weights drawn from `seed`, in fp32.

    width: a multiple of HEAD_WIDTH; length: maximum number of tokens of a text.
    """
    from transformers import AutoModelForMaskedLM, RobertaConfig

    assert width % HEAD_WIDTH == 0, width
    config = RobertaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD_WIDTH,
        intermediate_size=4 * width,
        max_position_embeddings=length + _PADDING + 1,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=_STD * (_STD_WIDTH / width) ** 0.5,
        layer_norm_eps=1e-5,
        bos_token_id=0,
        pad_token_id=_PADDING,
        eos_token_id=2,
    )
    torch.manual_seed(seed)
    # SDPA's backward pass is slower than eager's on a CPU
    model = AutoModelForMaskedLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    return cast("RobertaForMaskedLM", model)
