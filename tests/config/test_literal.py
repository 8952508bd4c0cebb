"""Text is taken literally by OmegaConf and, from the printed command, by Hydra, whatever characters it has."""

import random

import pytest
from omegaconf import OmegaConf

from loralab.config.literal import literal
from loralab.config.overrides import to_override
from tests.small_runs import composer

PARTS = [
    "$", "{", "}", "\\", "'", '"', ":", "#", " ", "\n", "\t", "é", "a", "HOME", ",", "=", "[", "]", "(", ")", "${",
    "\\${", "${oc.env:HOME}", "%", "&", "*", "!", "|", ">", "@", "~", "-", "+", "?", "1e5", "null",
]  # fmt: skip


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 20))])
def test_any_text_comes_back_from_omegaconf_and_from_an_override(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(60):
        text = "".join(draw.choices(PARTS, k=draw.randint(1, 8)))
        held = OmegaConf.create({"text": literal(text), "list": literal([text])})
        assert OmegaConf.to_container(held, resolve=True) == {"text": text, "list": [text]}
        composed = composer().settings([f"task.label={to_override(literal(text))}"])
        assert composed.task.label == text


def test_other_values_stay_as_they_are() -> None:
    value = {"a": [1, 2.5, None, True], "b": {"c": "plain\\text $x {y}"}}
    assert literal(value) == value
