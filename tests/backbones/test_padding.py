"""Padding: a text's outputs do not depend on its batch, or the padding is moved, or a line says so before training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from loralab.backbones.padding import apart_by_padding
from loralab.backbones.source import Source
from loralab.errors import UserError
from tests.backbones.checkpoints import find, take
from tests.families import ALL, FAMILIES, save_checkpoint

XLNET = {"vocab_size": 100, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48}
SIZES = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}


def saved(directory: Path, model_type: str, **settings: Any) -> Source:
    """A tiny classifier of a family without a row in the table."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = AutoConfig.for_model(model_type, **settings, num_labels=3, pad_token_id=1)
        model = AutoModelForSequenceClassification.from_config(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return find(save_checkpoint(model, directory / model_type), directory)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("family", ALL)
def test_no_family_of_the_table_reads_the_padding(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    source = find(save_checkpoint(ALL[family](), tmp_path / family), tmp_path)
    backbone = take(source, dtype=dtype)
    assert (backbone.notes, backbone.unfit) == ((), None)
    assert apart_by_padding(backbone.model) < (1e-5 if dtype == torch.float32 else 0.03)


def test_xlnet_has_its_padding_moved_to_the_left(tmp_path: Path) -> None:
    source = saved(tmp_path, "xlnet", **XLNET)
    backbone = take(source)
    assert (backbone.notes, backbone.unfit) == ((), None)
    own = AutoModelForSequenceClassification.from_pretrained(source.directory).eval()
    right = backbone.tokenizer(["w7 w8 w9 w10 w11 w12", "w20 w21 w22"], padding=True, return_tensors="pt")
    backbone.tokenizer.padding_side = "left"
    left = backbone.tokenizer(["w7 w8 w9 w10 w11 w12", "w20 w21 w22"], padding=True, return_tensors="pt")
    assert not torch.equal(left["input_ids"], right["input_ids"])
    with torch.no_grad():
        found, wanted, wrong = backbone.model(**right).logits, own(**left).logits, own(**right).logits
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert (found[1] - wrong[1]).abs().max() > 1e-2, "on the right it would classify by the padding"


def test_a_family_without_a_mask_is_a_warning_of_one_line(tmp_path: Path) -> None:
    backbone = take(saved(tmp_path, "fnet", **SIZES))
    (note,) = backbone.notes
    assert "a 'fnet' model, for a text depend on the texts beside it" in note and "\n" not in note
    assert backbone.unfit is None


def test_outputs_that_say_more_about_the_padding_than_the_text_are_refused(
    checkpoint: Callable[..., Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import BertModel

    def unmasked(self: Any, input_ids: Any, attention_mask: Any = None, **named: Any) -> Any:
        return whole(self, input_ids.flip(1), attention_mask=torch.ones_like(attention_mask), **named)

    whole = BertModel.forward
    monkeypatch.setattr(BertModel, "forward", unmasked)
    unfit = take(checkpoint("bert")).unfit
    assert unfit is not None and unfit.endswith("choose another backbone, e.g. model=minilm")


def test_the_check_draws_nothing_and_changes_no_weight(checkpoint: Callable[..., Source]) -> None:
    model = take(checkpoint("roberta")).model
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    apart_by_padding(model)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_weights_that_are_not_numbers_are_named(tmp_path: Path) -> None:
    model = FAMILIES["bert"]()
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight[3, 3] = float("nan")
    source = find(save_checkpoint(model, tmp_path / "m"), tmp_path)
    with pytest.raises(UserError, match=r"^model\.path: .*bert\.encoder\.layer\.1\.output\.dense\.weight holds NaN"):
        take(source)
