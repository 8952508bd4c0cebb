"""Trains one run of LoRA or LoRA+; with -m, several. `python train.py --help` lists the settings."""

from loralab import startup

startup.begin()  # before the imports that take long

import hydra
from omegaconf import DictConfig

from loralab.cli import hydra_main


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(composed: DictConfig) -> float | None:
    """Trains one run."""
    return hydra_main.train(composed)


if __name__ == "__main__":
    hydra_main.launch(main)
