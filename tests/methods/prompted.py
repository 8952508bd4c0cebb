"""Tiny models with virtual tokens, for the tests of prompts and of their files."""

from typing import Any

import pytest
import torch
from torch import Tensor

from loralab.backbones.families import family_of
from loralab.compat.transformers import cache_name
from loralab.methods import prompts
from tests import adapted
from tests.adapted import frozen
from tests.families import ALL as EVERY
from tests.families import MODEL_TYPES as TYPE_OF
from tests.families import PAD, VOCABULARY

__all__ = [
    "DECODERS",
    "EVERY",
    "KINDS",
    "PEFT",
    "PEFT_GENERATES",
    "TOKENS",
    "TYPE_OF",
    "attach",
    "decoder",
    "head_of",
    "left_padded",
    "of_peft",
    "prompted",
    "row",
]

PEFT = [
    # PEFT 0.21 reads an attribute that transformers 5.23 has renamed, and says that it ignores positions in generation.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning"),
]
KINDS: tuple[prompts.Kind, ...] = ("prefix", "prompt", "p_tuning")
TOKENS = 5
DECODERS = [name for name in EVERY if family_of(TYPE_OF[name]).kind == "decoder"]


def head_of(model: Any) -> tuple[str, ...]:
    """A classifier's; a language model has none."""
    return () if model.can_generate() else tuple(name for name in adapted.head_of(model) if name != "prompt")


def attach(model: Any, kind: prompts.Kind, **settings: Any) -> Any:
    prompts.attach(model, head=head_of(model), kind=kind, **{"tokens": TOKENS, "hidden": None, "seed": 0, **settings})
    return model


def prompted(family: str, kind: prompts.Kind, **settings: Any) -> Any:
    """A classifier, frozen but for the head and the virtual tokens."""
    return attach(frozen(family), kind, **settings)


def decoder(family: str) -> Any:
    """The family's tiny language model, frozen; it never ends an answer by itself."""
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = AutoModelForCausalLM.from_config(EVERY[family]().config, attn_implementation="eager")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.generation_config.eos_token_id = None
    return model.eval().requires_grad_(False)


PEFT_GENERATES = cache_name(decoder("gpt2")) == "past_key_values"
"""Whether PEFT's prompts reach `generate`: PEFT 0.21.2 gives them by a name that transformers 5.24 has no more."""


def of_peft(theirs: Any) -> Any:
    """PEFT's model with a forward that passes its prefix under the backbone's argument name."""
    from peft import PeftType

    backbone, config = theirs.get_base_model(), theirs.active_peft_config
    name = cache_name(backbone)
    if config.peft_type != PeftType.PREFIX_TUNING or name in (None, "past_key_values"):
        return theirs

    def forward(**batch: Tensor) -> Any:
        mask = batch["attention_mask"]
        longer = torch.cat([mask.new_ones(len(mask), config.num_virtual_tokens), mask], dim=1)
        return backbone(**{**batch, "attention_mask": longer, name: theirs.get_prompt(len(mask))})

    theirs.forward = forward
    return theirs


def left_padded() -> dict[str, Tensor]:
    """Two contexts, of 6 and 4 tokens."""
    ids = torch.randint(3, VOCABULARY, (2, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    ids[1, :2], mask[1, :2] = PAD, 0
    return {"input_ids": ids, "attention_mask": mask}


def row(batch: dict[str, Tensor], at: int) -> dict[str, Tensor]:
    """One example alone, without its padding."""
    real = batch["attention_mask"][at].bool()
    return {name: value[at : at + 1, real] for name, value in batch.items() if value.ndim == 2}
