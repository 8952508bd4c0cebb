"""Ten headline numbers of analysis/claims.md, computed again from the CSVs with pandas and numpy alone."""

# ruff: noqa: E501, a claim is one line

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ANALYSIS = Path(__file__).resolve().parents[2] / "analysis"


def fresh(study: str) -> pd.DataFrame:
    frame = pd.read_csv(ANALYSIS / "results" / f"{study}.csv")
    return frame[frame["stage"] == "confirm"]


def points(runs: pd.DataFrame, arm: str, own: object, base: object, settings: list[str]) -> float:
    """The mean over the settings of the mean difference in test accuracy at equal seeds, in points."""
    runs = runs.assign(arm=runs[arm].astype(object))
    table = runs.pivot_table(index=[*settings, "seed"], columns="arm", values="test/accuracy", aggfunc="mean")
    difference = (table[own] - table[base]).dropna()
    if settings:
        difference = difference.groupby(level=settings).mean()
    return 100 * float(difference.mean())


def low_data(method: str, base: str) -> float:
    runs = fresh("low_data")
    return points(runs[runs["examples"] >= 300], "method", method, base, ["examples"])


def ranks() -> float:
    runs = fresh("rank")
    runs = runs[runs["lora.targets"].isin(["q,v", "q,k,v,o"]) & (runs["lora.scaling"] == "constant")]
    return points(runs, "lora.rank", 1, 64, ["lora.targets"])


def methods() -> float:
    runs = fresh("methods")
    runs = runs[(runs["method"] == "full") | ((runs["method"] == "lora") & (runs["lora.rank"] == 8))]
    return points(runs, "method", "lora", "full", [])


def memory(column: str) -> float:
    frame = pd.read_csv(ANALYSIS / "results" / "memory.csv")
    frame = frame[(frame["batch"] == 1) & (frame["length"] == 16)].assign(training=frame["weights"] + frame["above"])
    full, lora = frame[frame["method"] == "full"], frame[frame["rank"] == 4]
    return float(np.exp(np.log(full[column].to_numpy() / lora[column].to_numpy()).mean()))


def houlsby() -> float:
    frame = pd.read_csv(ANALYSIS / "results" / "latency.csv")
    cell = frame[(frame["batch"] == 1) & (frame["length"] == 16)].pivot(index="repeat", columns="arm", values="cpu")
    return float(np.exp(np.log(cell["houlsby"] / cell["plain"]).mean()))


def amplified() -> float:
    frame = pd.read_csv(ANALYSIS / "results" / "amplification.csv")
    layers = frame[(frame["kind"] == "layer") & (frame["map"] == "q")]
    norms = layers.groupby(["lora.rank", "seed"])[["delta W", "in delta W"]].mean()
    by_seed = (norms["delta W"] / norms["in delta W"]).unstack("lora.rank")
    return float(np.exp(np.log(by_seed[4] / by_seed[64]).mean()))


CLAIMS: list[tuple[str, str, str, Callable[[], float]]] = [
    ("ratio", "does a λ above 1 gain accuracy", "λ = 16", lambda: points(fresh("ratio"), "lora.ratio", 16, 1, ["task", "lora.init"])),
    ("ratio", "does a λ above 1 gain accuracy", "λ = 64", lambda: points(fresh("ratio"), "lora.ratio", 64, 1, ["task", "lora.init"])),
    ("rank_ratio", "does a λ above 1 gain accuracy", "λ = 16", lambda: points(fresh("rank_ratio"), "lora.ratio", 16, 1, ["lora.rank"])),
    ("rank", "is a small rank as good as 64", "r = 1", ranks),
    ("targets", "does a budget spread over more maps", "q, k, v and o", lambda: points(fresh("targets"), "lora.targets", "q,k,v,o", "q", [])),
    ("low_data", "does LoRA beat full fine-tuning", "300 to 3,200 examples", lambda: low_data("lora", "full")),
    ("low_data", "does LoRA+ beat LoRA", "300 to 3,200 examples", lambda: low_data("lora_plus", "lora")),
    ("methods", "does LoRA reach full fine-tuning", "LoRA (r = 8)", methods),
    ("memory", "how much less memory", "1 x 16 tokens", lambda: memory("training")),
    ("memory", "how much smaller is its checkpoint", "full fine-tuning over LoRA", lambda: memory("checkpoint")),
    ("latency", "do adapters slow it", "Houlsby", houlsby),
    ("amplification", "which directions of W", "amplification at r = 4 over that at r = 64", amplified),
]  # fmt: skip


@pytest.mark.parametrize(("study", "question", "claim", "again"), CLAIMS, ids=[f"{c[0]} {c[2]}" for c in CLAIMS])
def test_a_headline_number_is_that_of_the_csv(
    study: str, question: str, claim: str, again: Callable[[], float]
) -> None:
    text = (ANALYSIS / "claims.md").read_text(encoding="utf-8")
    (block,) = (each for each in text.split("\n## ") if each.startswith(f"[{study}](figures/{study}.png): {question}"))
    (row,) = (line for line in block.splitlines() if line.startswith(f"| {claim} |"))
    printed = re.search(r"\| ([+-]?[\d.]+)(?: points|x)? \[", row)
    assert printed is not None
    assert again() == pytest.approx(float(printed[1]), abs=0.006 + 5e-6 * abs(float(printed[1])))
