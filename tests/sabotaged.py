"""train.py with failures in the fifth step of some seeds: 1 raises, 2 exits without a message, 4 hangs."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from loralab.cli import hydra_main


def sabotage(seed: int) -> Any:
    """Counts the optimizer's steps in a torch hook and fails in the fifth."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    steps = 0

    def after_step(*_: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == 5 and seed == 1:
            raise RuntimeError("seed 1 raises")
        if steps == 5 and seed == 2:
            print("seed 2 leaves", flush=True)
            os._exit(3)
        if steps == 5 and seed == 4:
            time.sleep(3600)

    return register_optimizer_step_post_hook(after_step)


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
def main(composed: DictConfig) -> float | None:
    """Runs one run, or its failure."""
    handle = sabotage(composed.seed)
    try:
        return hydra_main.train(composed)
    finally:
        handle.remove()


if __name__ == "__main__":
    hydra_main.launch(main)
