"""A backbone without numbers has the tensors of the loaded one."""

from pathlib import Path
from typing import Any

import pytest
import torch

from loralab.backbones.load import load, load_generator
from loralab.backbones.source import locate
from loralab.backbones.weightless import weightless

PLAIN: dict[str, Any] = {"dropout": 0.0, "attention": "eager", "dtype": torch.bfloat16}


def sizes(model: torch.nn.Module) -> dict[str, tuple[torch.Size, torch.dtype, bool]]:
    return {name: (p.shape, p.dtype, p.requires_grad) for name, p in model.named_parameters()}


@pytest.mark.parametrize("kind", [None, "nf4"])
@pytest.mark.parametrize("name", ["tiny", "tiny_decoder", "tiny_seq2seq"])
def test_its_parameters_and_its_maps_are_those_of_the_loaded_one(name: str, kind: str | None, tmp_path: Path) -> None:
    if kind is not None:
        pytest.importorskip("bitsandbytes", reason="needs the extra `quantize`")
    source = locate(name, package=None, hub=None, revision="main", path=None, cache=tmp_path)
    generates = name != "tiny"
    with torch.device("meta"):
        found = weightless(source, generates=generates, quantize=kind, **PLAIN)
    if generates:
        wanted = load_generator(source, device="cpu", quantize=kind, **PLAIN)
    else:
        wanted = load(source, labels=2, regression=False, device="cpu", seed=0, quantize=kind, **PLAIN)
    assert {p.device.type for p in found.model.parameters()} == {"meta"}
    assert sizes(found.model) == sizes(wanted.model)
    assert (found.maps, found.head, found.seq2seq, found.at_targets) == (
        wanted.maps, wanted.head, wanted.seq2seq, wanted.at_targets,
    )  # fmt: skip
