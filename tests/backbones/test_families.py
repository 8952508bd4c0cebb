"""The roles q, k, v, o and mlp are verified by their effect on attention probabilities, not by module names."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from loralab.backbones import families as module
from loralab.backbones.checkpoint import width_of
from loralab.backbones.families import FAMILIES as TABLE
from loralab.backbones.families import ROLES, LinearMap, kind_of, linear_maps
from loralab.backbones.load import load_generator
from loralab.compat.transformers import has_sdpa
from tests.backbones.checkpoints import find, take
from tests.families import ALL, FUSED, MORE_FAMILIES, VARIANTS, example_batch, in_gate, save_checkpoint
from tests.generators import EVERY_GENERATOR, GENERATORS, pairs

TOKEN = 3

families = pytest.mark.parametrize("family", ALL | VARIANTS)


@pytest.fixture(scope="module")
def models() -> dict[str, PreTrainedModel]:
    return {}


@pytest.fixture
def model(family: str, models: dict[str, PreTrainedModel]) -> PreTrainedModel:
    if family not in models:
        models[family] = (ALL | VARIANTS)[family]()
    return models[family]


@contextmanager
def shifted(model: PreTrainedModel, one: LinearMap, rows: Any = None) -> Iterator[None]:
    """Adds a fixed vector to what the map says about one token (not to DeBERTa's later calls, about positions)."""
    calls = []

    def shift(_: nn.Module, __: Any, output: Tensor) -> Tensor | None:
        calls.append(1)
        if len(calls) > 1:
            return None
        output = output.clone(memory_format=torch.contiguous_format)
        at = list(rows if rows is not None else one.rows if one.rows is not None else range(output.shape[-1]))
        output.view(-1, output.shape[-1])[TOKEN, at] += torch.linspace(1.0, -2.0, len(at)) if len(at) > 1 else 3.0
        return output

    handle = model.get_submodule(one.name).register_forward_hook(shift)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def observe(model: PreTrainedModel, one: LinearMap) -> tuple[Tensor, Tensor]:
    """Attention probabilities (batch, heads, query, key) of the map's own attention in the first block; logits."""
    batch = example_batch(model)
    del batch["labels"]
    output = model(**batch, output_attentions=True)
    if not model.config.is_encoder_decoder:
        kind = "attentions"
    elif ".encoder." in one.name:
        kind = "encoder_attentions"
    else:
        crosses = "EncDecAttention" in one.name or "encoder_attn" in one.name
        kind = "cross_attentions" if crosses else "decoder_attentions"
    return output[kind][0][:1], output.logits  # the first sentence, which has no padding


def first_block(model: PreTrainedModel) -> list[LinearMap]:
    return [
        one for one in linear_maps(model) if ".0." in one.name.replace("layer.0.Self", "").replace("layer.0.Dense", "")
    ]


def changed(before: Tensor, after: Tensor, dims: tuple[int, ...]) -> Tensor:
    return (before - after).abs().amax(dims) > 1e-6


@families
def test_q_moves_only_the_tokens_own_row_of_attention(model: PreTrainedModel) -> None:
    ones = [one for one in first_block(model) if one.role == "q"]
    assert len(ones) == (3 if model.config.is_encoder_decoder else 1)
    for one in ones:
        before, _ = observe(model, one)
        with shifted(model, one):
            after, _ = observe(model, one)
        assert changed(before, after, (0, 1, 3)).nonzero().flatten().tolist() == [TOKEN], one.name


@families
def test_k_moves_other_tokens_attention_to_the_token(model: PreTrainedModel) -> None:
    ones = [one for one in first_block(model) if one.role == "k"]
    assert len(ones) == (3 if model.config.is_encoder_decoder else 1)
    for one in ones:
        before, _ = observe(model, one)
        with shifted(model, one):
            after, _ = observe(model, one)
        assert changed(before, after, (0, 1, 3))[TOKEN + 1 :].all(), one.name


@families
@pytest.mark.parametrize("role", ["v", "o", "mlp"])
def test_v_o_and_mlp_move_the_output_but_not_their_blocks_attention(model: PreTrainedModel, role: str) -> None:
    ones = [one for one in first_block(model) if one.role == role]
    assert ones
    for one in ones:
        if model.config.is_encoder_decoder and role != "v":
            continue  # a decoder block attends twice: its first o does move its second attention
        before, logits = observe(model, one)
        with shifted(model, one):
            after, moved = observe(model, one)
        torch.testing.assert_close(before, after, rtol=0, atol=1e-6)
        assert changed(logits, moved, (0, 1)), one.name


@families
def test_without_v_only_o_gets_nothing(model: PreTrainedModel) -> None:
    inputs: dict[str, Tensor] = {}
    handles = []

    def silence(rows: Any) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            output = output.clone()
            output[..., list(rows) if rows is not None else slice(None)] = 0
            return output

        return hook

    def record(name: str) -> Any:
        def hook(_: nn.Module, args: Any) -> None:
            inputs[name] = args[0].detach()

        return hook

    maps = linear_maps(model)
    for one in maps:
        module = model.get_submodule(one.name)
        if one.role == "v":
            handles.append(module.register_forward_hook(silence(one.rows)))
        if one.role in ("o", "mlp"):
            handles.append(module.register_forward_pre_hook(record(one.name)))
    with torch.no_grad():
        model(**example_batch(model))
    for handle in handles:
        handle.remove()
    for one in maps:
        if one.role in ("o", "mlp"):
            assert (inputs[one.name].abs().max() == 0) == (one.role == "o"), one.name


@pytest.mark.parametrize("family", FUSED)
def test_rows_of_a_fused_projection_are_in_the_order_of_the_heads(model: PreTrainedModel) -> None:
    parts = {one.role: one for one in first_block(model) if one.role in "qkv"}
    heads = model.config.num_attention_heads
    size = model.config.hidden_size // heads
    groups = len(parts["k"].rows or ()) // size
    before, _ = observe(model, parts["q"])
    for role, one in parts.items():
        assert one.rows is not None
        for place, row in enumerate(one.rows):
            with shifted(model, one, rows=[row]):
                after, _ = observe(model, one)
            touched = changed(before, after, (0, 2, 3)).nonzero().flatten().tolist()
            head = place // size
            share = heads // groups
            expected = {"q": [head], "k": list(range(head * share, (head + 1) * share)), "v": []}[role]
            assert touched == expected, (role, row)


@pytest.mark.parametrize("family", FUSED)
def test_rows_of_q_k_and_v_share_out_the_fused_projection(model: PreTrainedModel) -> None:
    for name in {one.name for one in linear_maps(model) if one.role == "q"}:
        parts = [one.rows for one in linear_maps(model) if one.name == name]
        weight = model.get_submodule(name).weight
        outputs = weight.shape[1] if isinstance(model.get_submodule(name), Conv1D) else weight.shape[0]
        assert sorted(row for rows in parts if rows is not None for row in rows) == list(range(outputs))


@families
def test_every_linear_map_of_the_blocks_has_a_role_and_nothing_else_has(model: PreTrainedModel) -> None:
    prefix = model.base_model_prefix
    linear = {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and name.startswith(f"{prefix}.") and "pooler" not in name
    } - {"albert.encoder.embedding_hidden_mapping_in"}
    maps = linear_maps(model)
    assert {one.name for one in maps} == linear
    assert {one.role for one in maps} == set(ROLES)
    assert len({(one.name, one.role) for one in maps}) == len(maps)


def test_the_families_of_the_table_are_those_tested() -> None:
    assert {make().config.model_type for make in ALL.values()} == set(TABLE)


def test_a_family_without_a_row_has_no_roles() -> None:
    config = AutoConfig.for_model(
        "nystromformer", hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=20
    )
    assert linear_maps(AutoModelForSequenceClassification.from_config(config)) == ()


@pytest.mark.parametrize(
    ("model_type", "kind"),
    [
        ("gpt_neo", "decoder"), ("stablelm", "decoder"), ("marian", "encoder_decoder"), ("mbart", "encoder_decoder"),
        ("camembert", "encoder"), ("longformer", "encoder"), ("no_such_family", "encoder"),
    ],
)  # fmt: skip
def test_the_kind_of_a_family_without_a_row_is_transformers_own(model_type: str, kind: str) -> None:
    assert model_type not in TABLE
    assert kind_of(model_type) == kind


@pytest.mark.parametrize("model_type", sorted(TABLE))
def test_the_kind_of_a_row_is_what_transformers_says(model_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = TABLE[model_type].kind
    monkeypatch.setattr(module, "FAMILIES", {})
    assert kind_of(model_type) == said


@families
def test_a_family_has_sdpa_where_its_row_says_so(model: PreTrainedModel) -> None:
    family = model.config.model_type
    assert family == "gptj" or TABLE[family].sdpa == has_sdpa(type(model)), "GPT-J alone has gained it (5.24)"


@families
def test_a_decoder_alone_does_not_look_ahead(model: PreTrainedModel) -> None:
    kind = TABLE[model.config.model_type].kind
    assert (kind == "encoder_decoder") == model.config.is_encoder_decoder
    if kind == "encoder_decoder":
        return
    ids = example_batch(model)["input_ids"][:1]
    other = ids.clone()
    other[0, -1] += 1
    with torch.no_grad():
        before, after = model.base_model(ids)[0], model.base_model(other)[0]
    assert changed(before, after, (0, 2))[0] == (kind == "encoder")


@families
def test_the_width_and_the_position_table_of_a_row_are_the_configs(model: PreTrainedModel) -> None:
    settings, row = model.config.to_dict(), TABLE[model.config.model_type]
    assert width_of(settings, "model.path", Path()) == 32
    table = settings.get("max_position_embeddings", settings.get("n_positions", settings.get("max_seq_len")))
    assert row.unused_positions is None or table == 64


def test_the_shortcuts_reach_the_families_that_they_were_made_for() -> None:
    plain = {name for name, row in TABLE.items() if row.plain_attention}
    assert plain >= {"bert", "roberta", "xlm-roberta", "electra", "distilbert", "gpt2"}
    first = {name for name, row in TABLE.items() if row.first_token}
    assert first >= {"bert", "roberta", "xlm-roberta", "electra"}


@pytest.mark.parametrize("family", in_gate(MORE_FAMILIES))
def test_a_loaded_classifier_gives_the_logits_of_transformers_own_with_and_without_padding(
    family: str, tmp_path: Path
) -> None:
    directory = save_checkpoint(MORE_FAMILIES[family](), tmp_path)
    backbone = take(find(directory, tmp_path / "digests"))
    own: Any = AutoModelForSequenceClassification.from_pretrained(directory, num_labels=3, attn_implementation="eager")
    batch = example_batch(own.eval())
    del batch["labels"]
    alone = {"input_ids": batch["input_ids"][1:, :7], "attention_mask": batch["attention_mask"][1:, :7]}
    with torch.no_grad():
        ours = backbone.model(**batch).logits
        torch.testing.assert_close(ours, own(**batch).logits, rtol=0, atol=1e-5)
        torch.testing.assert_close(ours[1:], own(**alone).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", in_gate(name for name in EVERY_GENERATOR if name not in GENERATORS))
def test_a_loaded_generator_gives_the_logits_of_transformers_own(family: str, tmp_path: Path) -> None:
    made = EVERY_GENERATOR[family]()
    directory = save_checkpoint(made, tmp_path)
    backbone = load_generator(
        find(directory, tmp_path / "digests"), dropout=0.0, attention="auto", dtype=torch.float32, device="cpu"
    )
    batch = pairs(3, seq2seq=backbone.seq2seq)(np.arange(3))
    del batch["labels"]
    with torch.no_grad():
        wanted = made(**batch, use_cache=False).logits  # as in training; T5's rounding differs with a cache
        torch.testing.assert_close(backbone.model(**batch).logits, wanted, rtol=0, atol=1e-5)
    assert backbone.seq2seq == made.config.is_encoder_decoder
