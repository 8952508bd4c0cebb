"""The name of a config's backbone, in captions and in the names of runs."""

import os
from pathlib import Path

from loralab.config.compose import CONF
from loralab.config.schema import ModelConfig

__all__ = ["backbone_name"]


def backbone_name(model: ModelConfig) -> str:
    """The model's name; the name of the folder or GGUF file where model.path replaces what conf/model names so."""
    replaced = model.path is not None and (model.package is not None or model.hub is not None)
    if not replaced or not (CONF / "model" / f"{model.name}.yaml").is_file():
        return model.name
    return Path(os.path.abspath(os.path.expanduser(str(model.path)))).name.removesuffix(".gguf")  # noqa: PTH100, PTH111
