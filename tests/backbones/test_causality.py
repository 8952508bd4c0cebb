"""A generator that reads the tokens it is to predict is found out, whatever its family."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from loralab.backbones.causality import looks_ahead
from loralab.backbones.load import load_generator
from loralab.backbones.source import locate
from loralab.errors import UserError
from tests.families import save_checkpoint
from tests.generators import GENERATORS

SMALL = {"vocab_size": 100, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}


def xlnet() -> Any:
    config = AutoConfig.for_model("xlnet", d_model=32, n_layer=2, n_head=4, d_inner=48, dropout=0.0, **SMALL)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("family", sorted(GENERATORS))
def test_the_generators_of_the_table_do_not_look_ahead(family: str) -> None:
    assert not looks_ahead(GENERATORS[family]())


def test_a_generator_that_reads_in_both_directions_is_refused(tmp_path: Any) -> None:
    assert looks_ahead(xlnet())
    directory = save_checkpoint(xlnet(), tmp_path)
    source = locate("x", package=None, hub=None, revision=None, path=str(directory), cache=None)
    with pytest.raises(UserError, match=r"^model\.path: .* a 'xlnet' model, which reads the tokens"):
        load_generator(source, dropout=0.0, attention="auto", dtype=torch.float32, device="cpu")
