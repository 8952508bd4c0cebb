"""Saves a benchmark's rows to benchmarks/results/, which is committed with the claims made from them."""

from pathlib import Path

import pandas as pd

__all__ = ["save"]


def save(rows: pd.DataFrame, path: Path) -> None:
    """Writes the CSV, with numbers of six significant digits."""
    path.parent.mkdir(exist_ok=True)
    rows.to_csv(path, index=False, float_format="%.6g")
