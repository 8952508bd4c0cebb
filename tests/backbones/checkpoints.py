"""Finds and loads checkpoints, for the tests of loading."""

from pathlib import Path
from typing import Any

import torch

from loralab.backbones.load import Backbone, load
from loralab.backbones.source import Source, locate


def find(directory: Path, cache: Path) -> Source:
    return locate("mine", package=None, hub=None, revision=None, path=str(directory), cache=cache)


def take(source: Source, **changes: Any) -> Backbone:
    settings: dict[str, Any] = {
        "labels": 3,
        "regression": False,
        "dropout": 0.0,
        "attention": "auto",
        "dtype": torch.float32,
        "device": "cpu",
        "seed": 0,
    }
    return load(source, **(settings | changes))
