"""Captions state what the columns contain, and nothing else."""

from typing import Any

import numpy as np
import pandas as pd

from loralab.studies import captions


def test_a_captions_setting_names_what_was_run() -> None:
    same: dict[str, Any] = {
        "model": "minilm",
        "lora.rank": 8,
        "lora.alpha": 8,
        "lora.targets": "q,v",
        "train.steps": 100,
    }
    one = pd.DataFrame([same | {"train.epochs": np.nan, "train.batch_size": 32}])
    assert captions.setting(one) == "MiniLM, LoRA with r = alpha = 8 on q and v, 100 steps of 32"
    epochs = same | {"lora.alpha": 16, "lora.targets": "q,k,v,o", "train.steps": np.nan, "model": "roberta"}
    other = pd.DataFrame([epochs | {"train.epochs": 3.0, "train.batch_size": 32}])
    assert captions.setting(other) == "roberta, LoRA with r = 8, alpha = 16 on q, k, v and o, 3 epochs of 32"
    wide = captions.setting(pd.concat([one.assign(**{"model.widen": k}) for k in (1, 4)]))
    assert wide.startswith("MiniLM at 1 or 4 times its width, LoRA with")
    ranks = pd.concat([one, one.assign(**{"lora.rank": 64, "lora.alpha": 64})])
    assert "r = alpha = 8 or 64 on q and v" in captions.setting(ranks)


def test_a_captions_end_counts_runs_once_and_names_the_code() -> None:
    runs = pd.DataFrame({"hash": ["a", "a", "b", "c"], "status": ["success"] * 3 + ["diverged"], "seed": [1, 1, 2, 2]})
    assert captions.provenance(runs.assign(commit="1234567890")) == "3 runs (1 diverged), code 1234567"
    mixed = runs.assign(commit=["1234567890"] * 3 + ["abcdef0"])
    assert captions.provenance(mixed) == "3 runs (1 diverged), code 1234567 (+1 other)"
    assert captions.provenance(runs.assign(commit=None)) == "3 runs (1 diverged), code unknown"
    assert [captions.seeds(runs), captions.seeds(runs[:2])] == ["2 seeds", "1 seed"]


def test_a_caption_is_made_of_the_columns_that_are_there() -> None:
    code = {"commit": "1234567890"}
    assert captions.caption(pd.DataFrame({"n": [1, 2]})) == "2 rows."
    assert captions.caption(pd.DataFrame([{"n": 1, **code}])) == "code 1234567."
    run = {"hash": "a", "status": "success", "seed": 0, "task": "trec", **code}
    assert captions.caption(pd.DataFrame([run])) == "TREC, 1 seed. 1 runs (0 diverged), code 1234567."
    setting = {
        "model": "minilm", "lora.rank": 8, "lora.alpha": 8, "lora.targets": "q,v",
        "train.steps": 100, "train.epochs": np.nan, "train.batch_size": 32,
    }  # fmt: skip
    said = captions.caption(pd.DataFrame([run | setting, run | setting | {"hash": "b", "seed": 1}]))
    assert said == (
        "TREC, MiniLM, LoRA with r = alpha = 8 on q and v, 100 steps of 32, 2 seeds. 2 runs (0 diverged), code 1234567."
    )
