"""Targets: roles, globs, and the one line for what matches nothing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from transformers.pytorch_utils import Conv1D

from loralab.backbones.families import linear_maps
from loralab.errors import UserError
from loralab.methods.lora import lora_modules
from loralab.methods.targets import Target, adaptable, maps_by_name, matches, select
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


class Plain(nn.Linear):
    """Falcon's: another way to compute the same."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight.T + self.bias


class Doubled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class Routed(nn.Linear):
    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x), x


class Packed(nn.Linear):
    """As a quantiser keeps its weight: the numbers of a row are in half as many bytes."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__(d_in, d_out)
        self.weight = nn.Parameter(torch.zeros(d_out, d_in // 2, dtype=torch.uint8), requires_grad=False)


class Scaled(nn.Embedding):
    embed_scale = 3.0

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return super().forward(ids) * self.embed_scale


class Normed(nn.Embedding):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(super().forward(ids), dim=-1)


class Positions(nn.Embedding):
    """BART's: counts positions, whatever the ids."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.arange(ids.shape[1]).expand(ids.shape))


@pytest.mark.parametrize(
    ("made", "expected"),
    [(Plain, True), (Doubled, False), (Routed, False), (Packed, False), (Scaled, True), (Normed, False),
     (Positions, False), (NonDynamicallyQuantizableLinear, True), (Conv1D, True)],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_subclass_is_adapted_where_it_computes_its_matrix(
    made: Callable[[int, int], nn.Module], expected: bool, dtype: torch.dtype
) -> None:
    module = made(8, 6)
    model = nn.ModuleDict({"one": module if made is Packed else module.to(dtype)})
    assert ("one" in adaptable(model, ())) == expected


def without_roles(family: str, *patterns: str) -> tuple[Target, ...]:
    model = FAMILIES[family]()
    modules = adaptable(model, head_of(model))
    return select(patterns, maps_by_name(model, modules), modules, model=model)


def test_a_family_without_roles_has_all_and_says_so() -> None:
    assert {t.name for t in without_roles("bert", "all")} == {
        *(t.name for t in chosen("bert", "all")),
        "bert.pooler.dense",
    }
    with pytest.raises(UserError) as caught:
        without_roles("bert", "o")
    line = str(caught.value)
    assert line.startswith("lora.targets: 'o' matches no linear map of this backbone; the only role known here is all;")
    assert line.endswith(
        "modules end in word_embeddings, position_embeddings, token_type_embeddings, query, key, value, dense"
    )


def test_all_is_not_offered_to_those_who_ask_for_it() -> None:
    model = nn.ModuleDict({"table": nn.Embedding(4, 4), "al": nn.LayerNorm(4)})
    modules = adaptable(model, ())
    with pytest.raises(UserError) as caught:
        select(["all"], maps_by_name(model, modules), modules, model=model)
    assert str(caught.value) == "lora.targets: 'all' matches no linear map of this backbone; modules end in table"


@pytest.mark.parametrize(
    ("family", "pattern", "said"),
    [
        (
            "llama",
            "self_attn",
            "model.layers.0.self_attn is a LlamaAttention, which holds q_proj, k_proj, v_proj, o_proj;",
        ),
        ("bert", "classifier", "classifier is in the head, which is trained as a whole;"),
        ("bert", "LayerNorm", "bert.embeddings.LayerNorm is a LayerNorm;"),
        ("opt", "embed_positions", "is a OPTLearnedPositionalEmbedding, which computes more than its matrix"),
    ],
)
def test_the_line_tells_what_a_name_that_cannot_be_adapted_is(family: str, pattern: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        adapt(family, targets=[pattern])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
