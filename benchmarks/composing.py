"""`train.py` without training: Hydra composes every job of a multirun and calls a function that does nothing.

python benchmarks/composing.py -m hydra/launcher=basic hydra/sweeper=basic seed=0,1,2
"""

import hydra
from omegaconf import DictConfig

from loralab.cli import hydra_main


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
def main(_: DictConfig) -> None:
    """Does nothing."""


if __name__ == "__main__":
    hydra_main.launch(main)
