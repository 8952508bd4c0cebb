"""`loralab pretrain`: what pretrain.py does, in any folder."""

import hydra
from omegaconf import DictConfig

from loralab.cli import hydra_main
from loralab.config.compose import CONF
from loralab.config.pretrain import PretrainConfig

__all__ = ["SCHEMA", "main"]

SCHEMA = PretrainConfig


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="pretrain")
def main(composed: DictConfig) -> float | None:
    """Pretrains one model."""
    return hydra_main.pretrain(composed)
