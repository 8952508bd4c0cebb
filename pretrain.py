"""Pretrains a masked language model of a given width; with -m, several. `--help` lists the settings."""

from loralab import startup

startup.begin()  # as in train.py

import hydra
from omegaconf import DictConfig

from loralab.cli import hydra_main
from loralab.config.pretrain import PretrainConfig


@hydra.main(version_base="1.3", config_path="conf", config_name="pretrain")
def main(composed: DictConfig) -> float | None:
    """Pretrains one model."""
    return hydra_main.pretrain(composed)


if __name__ == "__main__":
    hydra_main.launch(main, schema=PretrainConfig)
