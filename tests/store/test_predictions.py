"""predictions.parquet: every test example with its row, label and logits; equal logits, equal bytes."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from loralab.store.predictions import write_predictions


def test_every_example_is_there_and_bytes_repeat(tmp_path: Path) -> None:
    split = SimpleNamespace(labels=np.array([1, 0, 1]), rows=np.array([7, 2, 9]))
    last = np.arange(6, dtype=np.float32).reshape(3, 2)
    logits = {"last": {"test": last}, "best": {"test": -last}}
    for name in ("one", "two"):
        write_predictions(tmp_path / name, logits, {"test": split})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    table = pd.read_parquet(tmp_path / "one")
    assert table["at"].tolist() == ["last"] * 3 + ["best"] * 3
    assert table["row"].tolist() == [7, 2, 9] * 2
    assert table["label"].tolist() == [1, 0, 1] * 2
    np.testing.assert_array_equal(np.stack(table["logits"][:3].to_list()), last)
