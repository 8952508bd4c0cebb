"""The internals of transformers that are used work in this release; the tests of their callers have the details."""

import pytest
import torch

from loralab.compat import transformers as compat
from tests.families import FAMILIES, example_batch
from tests.methods.prompted import decoder

DECODERS = ("gpt2", "gpt_neox", "opt", "llama", "qwen2")


@pytest.mark.parametrize("family", [*DECODERS, "bert", "roberta", "electra"])
def test_a_cache_by_its_name_changes_the_logits_and_is_extended(family: str) -> None:
    model = FAMILIES[family]() if family not in DECODERS else decoder(family)
    name = compat.cache_name(model)
    assert name is not None
    batch = {key: value for key, value in example_batch(model).items() if key != "labels"}
    mask = torch.cat([batch["attention_mask"].new_ones(2, 3), batch["attention_mask"]], dim=1)
    heads = getattr(model.config, "num_key_value_heads", None) or model.config.num_attention_heads

    def cache() -> object:
        generator = torch.Generator().manual_seed(0)
        keys = [torch.randn(2, heads, 3, 8, generator=generator) for _ in range(4)]
        return compat.filled_cache([(keys[0], keys[1]), (keys[2], keys[3])])

    with torch.no_grad():
        bare = model(**batch).logits
        found = model(**{**batch, "attention_mask": mask, name: cache()}).logits
    assert not torch.allclose(found[:, -1], bare[:, -1], atol=1e-3)
    own = torch.ones(2, heads, 10, 8)
    keys, values = compat.extended(cache(), own, own, 1)
    assert keys.shape == values.shape == (2, heads, 13, 8) and bool((keys[:, :, 3:] == 1).all())


def test_a_family_without_keys_and_values_has_no_name_for_them() -> None:
    assert compat.cache_name(FAMILIES["deberta_v2"]()) is None
    assert compat.cache_name(FAMILIES["mpnet"]()) is None


def test_a_cache_is_found_by_either_name() -> None:
    assert compat.cache_in({"cache": 1, "past_key_values": None}) == 1
    assert compat.cache_in({"past_key_values": 2}) == 2
    assert compat.cache_in({"use_cache": True}) is None


def test_a_registered_attention_is_what_the_models_layers_compute_by() -> None:
    called = []

    def attend(module: object, q: torch.Tensor, *_: object, **__: object) -> tuple[torch.Tensor, None]:
        called.append(module)
        return torch.zeros_like(q).transpose(1, 2), None

    model = FAMILIES["bert"]()
    compat.register_attention("counted", attend)
    model.set_attn_implementation("counted")
    model(**example_batch(model))
    layer = model.bert.encoder.layer[0].attention.self
    assert len(called) == 2 and compat.attention_function(layer, max) is attend
    model.set_attn_implementation("eager")
    assert compat.attention_function(layer, max) is max


def test_a_module_is_drawn_anew_from_the_seed() -> None:
    model = FAMILIES["bert"]()
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        compat.initialise(model, model.classifier)
        drawn.append(model.classifier.weight.detach().clone())
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
