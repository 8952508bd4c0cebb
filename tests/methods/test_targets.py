"""Targets: roles, globs, and the one line for what matches nothing."""

import pytest

from loralab.backbones.families import linear_maps
from loralab.errors import UserError
from loralab.methods.lora import lora_modules
from loralab.methods.targets import Target, adaptable, matches, select
from tests.adapted import adapt, head_of
from tests.families import FAMILIES


def chosen(family: str, *patterns: str) -> tuple[Target, ...]:
    model = FAMILIES[family]()
    return select(patterns, linear_maps(model), adaptable(model, head_of(model)))


@pytest.mark.parametrize("family", FAMILIES)
def test_all_is_q_k_v_o_and_mlp(family: str) -> None:
    every = chosen(family, "all")
    assert {(t.name, t.block) for t in every} == {(t.name, t.block) for t in chosen(family, "q", "k", "v", "o", "mlp")}
    assert len(every) == len(linear_maps(FAMILIES[family]()))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_is_never_a_target(family: str) -> None:
    model = FAMILIES[family]()
    heads = head_of(model)
    for name in adaptable(model, heads):
        assert not any(name == head or name.startswith(f"{head}.") for head in heads)


def test_each_map_is_chosen_once_and_in_the_order_of_the_model() -> None:
    model = FAMILIES["bert"]()
    names = [t.name for t in chosen("bert", "v", "q", "query", "all", "v")]
    assert names == [name for name, _ in model.named_modules() if name in set(names)]
    assert len(names) == len(set(names)) == 12


@pytest.mark.parametrize(
    ("pattern", "count"),
    [("query", 2), ("*.layer.0.*.query", 1), ("layer.1.output.*", 1), ("bert.pooler.dense", 1), ("*embeddings", 3)],
)
def test_a_glob_matches_whole_names_and_their_ends(pattern: str, count: int) -> None:
    assert len(chosen("bert", pattern)) == count


def test_a_glob_does_not_match_the_middle_of_a_word() -> None:
    assert matches("c_attn", "h.0.attn.c_attn")
    assert not matches("attn", "h.0.attn.c_attn")


def test_a_glob_takes_the_whole_of_a_fused_projection_and_the_place_of_its_parts() -> None:
    for patterns in (("c_attn", "q"), ("v", "c_attn")):
        assert {(t.block, t.rows) for t in chosen("gpt2", *patterns)} == {("whole", None)}


def test_roles_of_a_fused_projection_are_blocks_of_one_module() -> None:
    model = adapt("gpt2", targets=["q", "v"])
    assert {tuple(module.blocks) for module in lora_modules(model).values()} == {("q", "v")}


def test_a_target_that_matches_nothing_names_the_nearest() -> None:
    with pytest.raises(UserError) as caught:
        chosen("roberta", "q", "qury")
    line = str(caught.value)
    assert line.startswith("lora.targets: 'qury' matches no linear map of this backbone; roles: q, k, v, o, mlp, all;")
    assert line.endswith("did you mean 'query'?")
    assert "\n" not in line


def test_a_target_like_nothing_lists_what_there_is() -> None:
    with pytest.raises(UserError, match=r"modules end in word_embeddings, .*query, key, value, dense$"):
        chosen("bert", "xyzzy")


def test_a_target_inside_the_head_is_refused() -> None:
    with pytest.raises(UserError, match="'classifier' matches no linear map"):
        chosen("bert", "classifier")


def test_a_rank_pattern_that_matches_nothing_is_named_by_its_key() -> None:
    with pytest.raises(UserError, match=r"^lora.rank_pattern: 'qury' matches no linear map"):
        adapt("bert", rank_pattern={"qury": 2})


def test_a_rank_pattern_outside_the_targets_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"^lora.rank_pattern: 'mlp' matches none of the maps that lora.targets selects"
    ):
        adapt("bert", rank_pattern={"mlp": 2})


def test_a_subclass_with_a_forward_of_its_own_is_not_a_target() -> None:
    with pytest.raises(UserError, match="'embed_positions' matches no linear map"):
        chosen("opt", "embed_positions")
