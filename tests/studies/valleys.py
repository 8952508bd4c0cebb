"""Synthetic first stages whose losses are a valley in log2 of (lr_A, lr_B), with a given minimum."""

from typing import Any

import numpy as np
import pandas as pd

SEEDS = (0, 1)


def windows(noise: float = 0.0, *, at: tuple[float, float] = (-9.0, -6.0)) -> pd.DataFrame:
    """A first stage of seven ratios, six rates each: its losses are a valley in log2 of (lr_A, lr_B), and a cliff."""
    rng, rows = np.random.default_rng(0), []
    for log2, centre in zip((-2, 0, 2, 3, 4, 5, 6), (-6, -7, -8, -8, -9, -9, -10), strict=True):
        for rate in range(centre - 3, centre + 3):
            x, y = rate - at[0], rate + log2 - at[1]
            loss = min(0.45 + 0.01 * x * x + 0.008 * y * y + 0.006 * x * y, 0.7)
            for each in SEEDS:
                value = loss + each / 10 + noise * rng.normal()
                own = {"stage": "grid", "seed": each, "lora.ratio": 2.0**log2, "optim.lr": 2.0**rate}
                rows.append({**own, "validation/loss": value})
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def surface(seed: int, noise: float = 0.01) -> tuple[Any, Any]:
    """Coordinates and values of the cells of such a valley, without the cliff."""
    cells = windows().drop_duplicates(["lora.ratio", "optim.lr"])
    x, y = np.log2(cells["optim.lr"]) + 9, np.log2(cells["optim.lr"] * cells["lora.ratio"]) + 6
    values = 0.01 * x * x + 0.008 * y * y + 0.006 * x * y + np.random.default_rng(seed).normal(0, noise, len(x))
    return np.column_stack([x - 9, y - 6]), values.to_numpy()
