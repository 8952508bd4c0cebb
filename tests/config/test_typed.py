"""Tests of a composed config's types: what an interpolation gives is of the type that the schema has at its place."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from loralab.config.explain import explain
from loralab.config.schema import Config, from_hydra
from loralab.config.typed import typed
from loralab.errors import UserError
from tests.small_runs import SMALL, composer, config

WRONG = {
    "lora.targets=${.rank}": "lora.targets: got 8; it must be a list, as lora.targets=[q,v]",
    "lora.targets=[[q]]": "lora.targets: got [['q']]; it must be a list",
    "lora.targets=[{a:1}]": "lora.targets: got [{'a': 1}]; it must be a list",
    "lora.targets=${oc.create:[1,2]}": "lora.targets: got [1, 2]; it must be a list",
    "lora.rank_pattern=${seed}": "lora.rank_pattern: got 0; it must be a mapping, as lora.rank_pattern={v:16}",
    "optim.betas=${seed}": "optim.betas: got 0; it must be a list, as optim.betas=[0.9,0.999]",
    "task.text=${optim.betas}": "task.text: got [0.9, 0.999]; it must be a list, as task.text=[a,b]",
    "optim=${seed}": "optim: got 0; it must be set by its keys, as optim.KEY=VALUE",
    "train=${model.name}": "train: got 'tiny'; it must be set by its keys, as train.KEY=VALUE",
    "lora=${oc.decode:null}": "lora: got None; it must be set by its keys, as lora.KEY=VALUE",
    "task.files=${seed}": "task.files: got 0; it must be set by its keys, as task.files.KEY=VALUE",
    "optim=${train}": "optim.epochs: no such key; optim has lr, ",
    "optim=${optim}": "optim: Recursive interpolation detected",
    "seed=${init_seed}": "seed: Recursive interpolation detected",
    "lora.rank=${model.name}": "lora.rank: While dereferencing interpolation '${model.name}': Value 'tiny' of type ",
    "seed=${oc.env:NO_SUCH}": "seed: KeyError raised while resolving interpolation: ",
    "seed=${nosuch:1}": "seed: Unsupported interpolation type nosuch",
}


@pytest.mark.parametrize("override", WRONG)
def test_a_value_of_another_type_is_one_line(override: str, tmp_path: Path) -> None:
    with pytest.raises((UserError, OmegaConfBaseException)) as caught:
        config(tmp_path, override)
    line = explain(caught.value)
    assert line is not None and line.startswith(WRONG[override]) and "\n" not in line


def test_an_interpolation_of_the_right_type_is_its_value(tmp_path: Path) -> None:
    found = config(tmp_path, "lora.rank=${seed}", "seed=3", "optim.lr=${lora.rank}", "task.text=${lora.targets}")
    assert (found.lora.rank, found.optim.lr, found.task.text) == (3, 3.0, ["q", "v"])
    assert type(found.optim.lr) is float


def test_all_else_is_as_omegaconf_has_it(tmp_path: Path) -> None:
    overrides = [
        *SMALL,
        f"store={tmp_path}",
        "lora.rank_pattern={v:3}",
        "optim.betas=[0,1e-3]",
        "seed='7'",
        "optim.lr=1",
    ]
    composed = composer().settings(overrides)
    assert typed(composed, Config) == OmegaConf.to_object(composed)
    assert from_hydra(composed) == OmegaConf.to_object(composed)


@pytest.mark.parametrize(
    ("node", "line"),
    [
        ("{epochs: 3}", "train.steps: has no value; give it one"),
        ("{epochs: 3, stps: 3}", "train.stps: no such key; train has"),
    ],
)
def test_a_node_of_an_interpolation_has_every_key(node: str, line: str, tmp_path: Path) -> None:
    composed = composer().settings([*SMALL, f"store={tmp_path}", "train='${oc.decode:${model.name}}'"])
    composed.model.name = node
    with pytest.raises(UserError, match=f"^{line}"):
        typed(composed, Config)
