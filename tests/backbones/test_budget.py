"""A config that describes more than its weight files can hold is refused while the model is built."""

import json
import resource
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from loralab.backbones.budget import SPARE_NUMBERS, within
from loralab.errors import UserError
from tests.backbones.checkpoints import find, take
from tests.families import FAMILIES, save_checkpoint


@pytest.mark.parametrize(
    "sizes",
    [
        {"vocab_size": 10**9},
        {"intermediate_size": 10**8},
        {"max_position_embeddings": 10**9},
        {"num_hidden_layers": 9_999},
        {"type_vocab_size": 10**12},
    ],
    ids=lambda sizes: next(iter(sizes)),
)
def test_absurd_sizes_are_one_line_at_once_and_take_no_memory(
    bert: Path, tmp_path: Path, sizes: dict[str, Any]
) -> None:
    content = json.loads((bert / "config.json").read_text())
    (bert / "config.json").write_text(json.dumps(content | sizes))
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    with pytest.raises(
        UserError, match=r"^model\.path: .*config\.json describes a model that its [\d,]+ bytes"
    ) as info:
        take(find(bert, tmp_path))
    assert "\n" not in str(info.value)
    assert time.thread_time() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000, "kB"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"text_config": {"n_layer": 10**9}}, "n_layer"),
        ({"attention_types": [[["global"], 10**9]]}, "attention_types"),
        ({"num_labels": 10**9}, "num_labels"),
    ],
)
def test_lists_that_a_config_would_make_are_bounded_before_transformers_reads_it(
    bert: Path, tmp_path: Path, changes: dict[str, Any], name: str
) -> None:
    content = json.loads((bert / "config.json").read_text())
    (bert / "config.json").write_text(json.dumps(content | changes))
    with pytest.raises(UserError, match=rf"config\.json: {name}: got 1000000000; at most 10*,"):
        find(bert, tmp_path)


def test_every_family_stays_within_its_budget(tmp_path: Path) -> None:
    for family in ("bert", "gpt2", "t5"):
        take(find(save_checkpoint(FAMILIES[family]().base_model, tmp_path / family), tmp_path))


def test_the_bound_ends_with_the_block() -> None:
    with pytest.raises(UserError, match=r"Linear\.weight would be 8,000 x 9,000"), within(0, where="x"):
        nn.Linear(9_000, 8_000, device="meta")
    assert nn.Linear(9_000, 8_000, device="meta").weight.numel() > SPARE_NUMBERS
    with within(10**9, where="x"):
        assert torch.equal(nn.Linear(1, 1, bias=False).weight, nn.Parameter(torch.zeros(1, 1))) is False
