"""Two spellings of the same targets: module names that select the maps of roles, in every family."""

import pytest

from loralab.backbones.families import FAMILIES as ROWS
from loralab.backbones.families import linear_maps
from loralab.backbones.named_roles import as_roles
from loralab.methods.targets import adaptable, select
from tests.families import ALL, in_gate


@pytest.mark.parametrize(
    ("targets", "model_type", "roles"),
    [
        (["query", "value"], "bert", ["q", "v"]),
        (["self.value", "q"], "bert", ["q", "v"]),
        (["q_proj", "v_proj"], "llama", ["q", "v"]),
        (["gate_proj", "up_proj", "down_proj"], "llama", ["mlp"]),
        (["q_lin"], "distilbert", ["q"]),
    ],
)
def test_names_that_select_the_maps_of_roles_are_these_roles(
    targets: list[str], model_type: str, roles: list[str]
) -> None:
    assert as_roles(targets, model_type) == roles


@pytest.mark.parametrize(
    ("targets", "model_type"),
    [
        (["v", "q"], "bert"),  # roles
        (["all"], "bert"),
        (["que*"], "bert"),  # a glob
        (["gate_proj"], "llama"),  # a part of mlp
        (["dense"], "bert"),  # of attention, MLP and pooler
        (["output.dense"], "bert"),
        (["c_attn"], "gpt2"),  # one adapter for q, k and v together
        (["q", "c_attn"], "gpt2"),
        (["query"], "nothing"),  # a family without a row
        (["query", "typo"], "bert"),
    ],
)
def test_other_targets_are_left_as_they_are(targets: list[str], model_type: str) -> None:
    assert as_roles(targets, model_type) == targets


@pytest.mark.parametrize("family", in_gate(ALL))
def test_the_roles_select_the_same_maps_as_the_names(family: str) -> None:
    model = ALL[family]()
    head = [name for name, _ in model.named_children() if name != model.base_model_prefix]
    maps, modules = linear_maps(model), adaptable(model, head)
    ends = {name.rpartition(".")[2] for name in modules} - {"q", "k", "v", "o"}
    names = ends & {path.rpartition(".")[2] for path in ROWS[model.config.model_type].maps}
    for name in [[each] for each in sorted(names)] + [sorted(names)]:
        roles = as_roles(name, model.config.model_type)
        if roles != name:
            assert select(roles, maps, modules) == select(name, maps, modules), name
