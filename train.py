"""Trains one run of LoRA or LoRA+; with -m, several. `python train.py --help` lists the settings."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads sleep, so that contended cores don't stall torch

import hydra
from omegaconf import DictConfig

from loralab.cli import hydra_main


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(composed: DictConfig) -> float | None:
    """Trains one run."""
    return hydra_main.train(composed)


if __name__ == "__main__":
    hydra_main.launch(main)
