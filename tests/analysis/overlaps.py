"""Synthetic phi for the pairs of runs of a study: its CSV with a given phi for each map, side, i and j."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from tests.analysis.frames import made

Phi = Callable[[dict[str, Any], str, str, str, int, int], float]
"""The first run's settings, kind, map, side, i and j -> phi."""

D = 384
POWERS = (1, 2, 4, 8, 16, 32, 64, 128)


def scores(run: dict[str, Any]) -> dict[str, Any]:
    """The row of a run."""
    return {"kind": "run", "test/accuracy": 0.9, "test/loss": 0.3}


def paired(
    name: str,
    kinds: Callable[[dict[str, Any]], Mapping[str, Sequence[str]]],
    sizes: Callable[[dict[str, Any]], tuple[int, int]],
    phi: Phi,
    *overrides: str,
) -> pd.DataFrame:
    """The study's frame; kinds: kinds and sides of the pairs in which a run is the first; sizes: the largest i, j."""

    def rows(run: dict[str, Any]) -> list[dict[str, Any]]:
        found = [scores(run)]
        most = sizes(run)
        ij = [(i, j) for i in POWERS if i <= most[0] for j in POWERS if j <= most[1]]
        for kind, sides in kinds(run).items():
            for which in ("q", "v"):
                for side in sides:
                    cell = {"kind": kind, "map": which, "side": side, "layer": "all", "with": "f" * 10}
                    for i, j in ij:
                        value = phi(run, kind, which, side, i, j)
                        found.append(cell | {"i": i, "j": j, "phi": value, "chance": max(i, j) / D})
        return found

    return made(name, rows, *overrides)
