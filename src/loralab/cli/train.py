"""`loralab train`: what train.py does, in any folder."""

import hydra
from omegaconf import DictConfig

from loralab.cli import hydra_main
from loralab.config.compose import CONF
from loralab.config.schema import Config

__all__ = ["SCHEMA", "main"]

SCHEMA = Config


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(composed: DictConfig) -> float | None:
    """Trains one run."""
    return hydra_main.train(composed)
