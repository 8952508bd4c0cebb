"""A shortcut is kept if the model's outputs stay the same; otherwise the library's own forward is restored."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions
from transformers.models.bert.modeling_bert import BertEncoder, BertSelfAttention

from loralab.backbones import first_token
from loralab.backbones.attention import use_eager, use_fp32_softmax
from loralab.backbones.first_token import narrow_last_layer, widen_last_layer
from loralab.backbones.load import load
from loralab.backbones.shortcuts import short_texts, use_shortcut
from loralab.backbones.source import locate
from tests.families import FAMILIES, MORE_FAMILIES, example_batch


def loaded(tmp_path: Any, dtype: torch.dtype = torch.float32) -> Any:
    source = locate("tiny", package=None, hub=None, revision=None, path=None, cache=tmp_path)
    return load(source, labels=2, regression=False, dropout=0.0, attention="eager", dtype=dtype, device="cpu", seed=0)


def narrowed(model: Any) -> bool:
    return "forward" in vars(model.base_model.encoder.layer[-1])


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(**short_texts(model)).logits
    return found


@pytest.mark.parametrize("family", sorted(FAMILIES | MORE_FAMILIES))
def test_every_family_takes_the_short_texts(family: str) -> None:
    model = (FAMILIES | MORE_FAMILIES)[family]()
    texts = short_texts(model)
    found = logits(model)
    assert found.shape == (2, 3) and bool(found.isfinite().all())
    assert texts["attention_mask"].sum(1).tolist() == [18, 12]


def test_where_nothing_has_changed_both_shortcuts_stay(tmp_path: Any) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        backbone = loaded(tmp_path, dtype)
        assert backbone.notes == () and narrowed(backbone.model)


@pytest.mark.parametrize("change", ["another name", "another order"])
def test_a_layer_that_is_called_otherwise_has_its_own_forward(
    change: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A simulated change of a signature: the encoder passes its arguments by other names, or in another order."""
    wanted = logits(loaded(tmp_path).model)

    def forward(self: Any, hidden_states: Tensor, attention_mask: Any = None, *_: Any, **__: Any) -> Any:
        for layer in self.layer:
            own = "forward" in vars(layer)
            if not own:
                hidden_states = layer(hidden_states, attention_mask)
            elif change == "another name":
                hidden_states = layer(hidden_states=hidden_states, mask=attention_mask)
            else:
                hidden_states = layer(attention_mask, hidden_states)
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=hidden_states)

    monkeypatch.setattr(BertEncoder, "forward", forward)
    backbone = loaded(tmp_path)
    assert not narrowed(backbone.model)
    (note,) = backbone.notes
    assert note.startswith("the last layer for position 0 only does not work with transformers ")
    assert note.endswith("; its own, slower forward is used") and "\n" not in note
    torch.testing.assert_close(logits(backbone.model), wanted, rtol=0, atol=1e-6)


def test_an_attention_that_computes_something_else_has_its_own_forward(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No error but other outputs: the simulated scaling is half of the shortcut's."""
    stock = BertSelfAttention.forward

    def forward(self: Any, *arguments: Any, **named: Any) -> Any:
        kept, self.scaling = self.scaling, 9 * self.scaling
        try:
            return stock(self, *arguments, **named)
        finally:
            self.scaling = kept

    monkeypatch.setattr(BertSelfAttention, "forward", forward)
    model = FAMILIES["bert"]()
    line = use_shortcut(model, narrow_last_layer, widen_last_layer, name="it")
    assert line is not None and "the hidden states differ by " in line and not narrowed(model)


@pytest.mark.parametrize("family", ["bert", "distilbert", "gpt2"])
def test_an_attention_called_with_another_signature_is_eager_again(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transformers 5.0 called GPT-2's attention without a scaling."""
    from loralab.backbones import attention

    stock = attention.attend

    def without_scaling(*arguments: Any, scaling: float = 0.0, **named: Any) -> Any:
        return stock(*arguments, **named)  # the simulated change

    monkeypatch.setattr(attention, "attend", without_scaling)
    model = FAMILIES[family]().to(torch.bfloat16)
    wanted = model(**example_batch(model)).logits
    line = use_shortcut(model, use_fp32_softmax, use_eager, name="attention")
    assert line is not None and "missing 1 required positional argument: 'scaling'" in line
    assert torch.equal(model(**example_batch(model)).logits, wanted)


def test_nothing_of_the_model_changes_where_a_shortcut_is_tried() -> None:
    model = FAMILIES["bert"]().train()
    state, before = torch.get_rng_state(), {n: t.clone() for n, t in model.state_dict().items()}
    assert use_shortcut(model, narrow_last_layer, widen_last_layer, name="it") is None
    assert model.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    widen_last_layer(model)
    assert not narrowed(model) and first_token.narrow_last_layer(FAMILIES["t5"]()) is False


def test_short_texts_have_no_token_beyond_the_table() -> None:
    model: Any = FAMILIES["gpt2"]()
    model.config.eos_token_id = 50256  # GPT-2's default, beside a small vocabulary
    assert int(short_texts(model)["input_ids"].max()) < model.config.vocab_size
    del model.config.eos_token_id  # some families have none
    assert int(short_texts(model)["input_ids"].max()) < model.config.vocab_size
