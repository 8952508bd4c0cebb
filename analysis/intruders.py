"""The study `intruders`: singular vectors of W + delta W that are unlike all of W's, for LoRA and full fine-tuning.

`python analysis/intruders.py`: results/intruders.csv -> figures/intruders.{png,pdf} (2410.21228)
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.inspect import spectra
from loralab.studies import captions, figures, subspaces
from loralab.studies.intervals import dots
from loralab.studies.questions import Claim, Question
from loralab.studies.stats import Interval, paired, whole_mean
from loralab.studies.subspaces import SCORES

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from loralab.store.run_directory import RunDirectory
    from loralab.studies.tables import Tables

AXES = ["method", *subspaces.AXES]
EPS = (0.3, 0.4, 0.5, 0.6, 0.7)
COUNTS = {eps: f"below {eps:g}" for eps in EPS}
SIZES = {"stable rank": "stable\nrank", "effective rank": "effective\nrank", "norm": "$\\|\\Delta W\\|_F / \\|W\\|_F$"}
KEPT = ["hash", "stage", *AXES, "status", *SCORES, "kind", "map", "layer", *COUNTS.values(), *SIZES]
KEPT += ["seconds", "commit", "diff"]
TOP = 10  # number of examined singular vectors of W + delta W
CLAIMED = 0.5
FULL = "full"


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run, then one per layer of it: intruders among the first TOP, and the size of delta W."""
    done = subspaces.finished(tables)
    weights = subspaces.frozen(done.values())
    lefts = {name: spectra.left_basis(W) for name, W in weights.items()}
    found = []
    for digest, run in done.items():
        rows = []
        for name, delta in deltas(run, weights).items():
            number, which = subspaces.layer_and_map(name)
            rows.append({"map": which, "layer": str(number)} | measured(weights[name], lefts[name], delta))
        found.append(pd.DataFrame(rows).assign(kind="layer", hash=digest))
    return subspaces.scored(tables, found, KEPT)


def deltas(run: "RunDirectory", weights: "dict[str, NDArray[Any]]") -> "dict[str, NDArray[Any]]":
    """delta W (d, k) of these layers, dense: scaling B A, or the trained W minus W for full fine-tuning."""
    if run.adapter.is_dir():
        return {name: (U * S) @ V.T for name, update in subspaces.updates(run).items() for U, S, V in [update.svd()]}
    from transformers import AutoModelForSequenceClassification

    from loralab.methods.formats.plain import load_model

    model = load_model(run.model, AutoModelForSequenceClassification)
    tuned = {name: model.get_submodule(name).weight.detach().double().numpy() for name in weights}
    return {name: tuned[name] - W for name, W in weights.items()}


def measured(W: "NDArray[Any]", left: "NDArray[Any]", delta: "NDArray[Any]") -> dict[str, float]:
    """The row of a layer; left: all left singular vectors of W."""
    cosines = spectra.best_cosines(left, spectra.left_basis(W + delta)[:, :TOP])
    S = np.linalg.svd(delta, compute_uv=False)
    return {name: int((cosines < eps).sum()) for eps, name in COUNTS.items()} | {
        "stable rank": spectra.stable_rank(S),
        "effective rank": spectra.effective_rank(S),
        "norm": float(np.linalg.norm(delta) / np.linalg.norm(W)),
    }


def arms(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """`r = 1`, `r = 8, λ = 16`, ..., `full`: each with its rows, in rising order of λ and rank."""
    found = {}
    lora = frame[frame["method"] != FULL]
    for ratio, of in lora.groupby("lora.ratio"):
        for name, rows in subspaces.ranks(of).items():
            found[name if ratio == 1 else f"{name}, λ = {ratio:g}"] = rows
    full = frame[frame["method"] == FULL]
    return found | ({FULL: full} if len(full) else {})


def by_seed(rows: pd.DataFrame, column: str) -> "pd.Series[float]":
    """An arm's mean over layers and maps, one value per seed."""
    layers = rows[rows["kind"] == "layer"]
    return layers.groupby("seed")[column].mean()


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    found = arms(frame)
    figure, (left, right) = plt.subplots(1, 2, figsize=(plotting.DOUBLE, 2.7), width_ratios=(1.2, 1))
    for at, (name, rows) in enumerate(found.items()):
        shifted = [eps + 0.006 * (at - (len(found) - 1) / 2) for eps in EPS]
        ends = [subspaces.interval(by_seed(rows, column)) for column in COUNTS.values()]
        dots(left, shifted, ends, plotting.COLOURS[at], name, join="-")
    left.set(xlabel="ε (intruder: all cosines with W's vectors < ε)", xticks=EPS)
    left.set_title(f"intruders among a layer's first {TOP} singular vectors")
    right.set_axis_off()
    texts = [[f"{by_seed(rows, column).mean():.3g}" for column in SIZES] for rows in found.values()]
    table = right.table(
        texts, rowLabels=list(found), colLabels=list(SIZES.values()), loc="upper center", edges="horizontal"
    )
    table.auto_set_font_size(False)
    table.set_fontsize(plotting.SIZE)
    table.scale(1, 1.6)
    for at in range(len(SIZES)):
        table[0, at].set_height(1.7 * table[1, at].get_height())  # two lines
    right.set_title("of ΔW")
    for at in range(len(found)):
        table[at + 1, -1].get_text().set_color(plotting.COLOURS[at])
    return figure


def caption(frame: pd.DataFrame) -> str:
    return (
        f"{subspaces.setting(frame)}, λ = 1 unless said; full: all weights, in the same maps. Left singular vectors of "
        f"W + delta W; means over layers, q and v, 95% over {captions.seeds(frame)} (Student t). "
        f"{captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per arm: its accuracy, its intruders at each eps, and the size of delta W."""
    rows = []
    for name, of in arms(frame).items():
        runs = of[of["kind"] == "run"]
        texts: dict[str, Any] = {"test accuracy": round(whole_mean(runs["test/accuracy"]), 4)}
        for eps, column in COUNTS.items():
            texts[f"ε = {eps:g}"] = subspaces.with_interval(subspaces.interval(by_seed(of, column)))
        texts |= {column: f"{by_seed(of, column).mean():.3g}" for column in SIZES}
        rows.append({"arm": name, "lr": runs["optim.lr"].iloc[0]} | texts)
    return pd.DataFrame(rows)


def more(some: pd.DataFrame, other: pd.DataFrame, eps: float) -> Interval:
    """An arm's intruders per layer minus another's, paired by seed."""
    both = pd.concat([by_seed(each, COUNTS[eps]) for each in (some, other)], axis=1, join="inner")
    return paired(both.iloc[:, 0], both.iloc[:, 1])


def questions(frame: pd.DataFrame) -> list[Question]:
    found = arms(frame)
    claims = [
        Claim("LoRA (r = 8) over full fine-tuning", more(found["r = 8"], found[FULL], CLAIMED), "more"),
        Claim("LoRA of rank 1 over rank 64", more(found["r = 1"], found["r = 64"], CLAIMED), "fewer at a high rank"),
    ]
    text = f"does LoRA bring more intruders a layer (ε = {CLAIMED:g})?"
    return [Question(text, "Shuttleworth et al. 2024", "intruders", claims)]


if __name__ == "__main__":
    figures.main(__file__)
