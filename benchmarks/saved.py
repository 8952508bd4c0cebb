"""Where a benchmark's rows are kept: benchmarks/results/, committed with what is claimed from them."""

from pathlib import Path

import pandas as pd

__all__ = ["save"]


def save(rows: pd.DataFrame, path: Path) -> None:
    """Writes the CSV, numbers in six digits."""
    path.parent.mkdir(exist_ok=True)
    rows.to_csv(path, index=False, float_format="%.6g")
