"""Python's values become the settings that a person would type, and lists become axes where a sweep can have them."""

from pathlib import Path

import numpy as np
import pytest

from loralab.config.from_python import axes, settings
from loralab.errors import UserError


def test_texts_mappings_and_keywords_are_settings() -> None:
    given = ("task=trec", {"lora.rank": 4, "optim": {"lr": 1e-3, "betas": [0.9, 0.99]}})
    named = {"model": "tiny", "store": Path("a b"), "lora": {"rank_pattern": {"v": 16}}, "tuned": None}
    assert settings(given, named) == [
        "task=trec", "lora.rank=4", "optim.lr=0.001", "optim.betas=[0.9,0.99]",
        "model=tiny", "store='a b'", "lora.rank_pattern={v:16}", "tuned=null",
    ]  # fmt: skip
    assert settings((), {"seed": np.int64(3), "optim": {"lr": np.float64(0.5)}}) == ["seed=3", "optim.lr=0.5"]


def test_a_list_is_an_axis_where_the_setting_takes_one_value() -> None:
    named = {
        "seed": range(2),
        "lora": {"ratio": [1, 4.0]},
        "model": ["tiny", "minilm"],
        "optim": {"lr": np.array([0.1, 0.2])},
    }
    assert axes(["-x"], named) == ["-x", "seed=0,1", "lora.ratio=1,4", "model=tiny,minilm", "optim.lr=0.1,0.2"]


def test_a_list_of_lists_is_an_axis_where_the_setting_takes_a_list() -> None:
    assert axes((), {"lora": {"targets": ["q", "v"]}}) == ["lora.targets=[q,v]"]
    assert axes((), {"lora": {"targets": [["q"], ["q", "v"]]}}) == ["lora.targets=[q],[q,v]"]
    assert axes((), {"optim": {"betas": [[0.9, 0.99]]}}) == ["optim.betas=[0.9,0.99]"]


def test_a_mistake_is_one_line() -> None:
    with pytest.raises(UserError, match=r"^seed: got no values; list one or more$"):
        axes((), {"seed": []})
    with pytest.raises(UserError, match=r"^got 3; settings are texts"):
        settings((3,), {})  # type: ignore[arg-type]
