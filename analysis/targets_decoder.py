"""The study `targets_decoder`: attention, the MLP or all maps of a decoder, at one budget of trained parameters.

`python analysis/targets_decoder.py`: results/targets_decoder.csv -> figures/targets_decoder.{png,pdf}
(LoRA Without Regret, Schulman et al. 2025)
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures
from loralab.studies.arms import (
    comparison_row,
    interior,
    paired_difference,
    record_values,
    select_columns,
    shared,
    split_arms,
)
from loralab.studies.questions import Question, gain
from loralab.studies.stats import whole_mean
from loralab.studies.thinned_curves import curve_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

SCORES = ["validation/loss", "validation/accuracy", "test/loss", "test/accuracy", "train/loss"]
AXES = ["seed", "task", "lora.init", "lora.ratio", "lora.scaling", "lora.rank_pattern", "optim.lr", *captions.SETTING]
KEPT = ["hash", "stage", *AXES, "status", *SCORES, "adapter", "seconds", "commit", "diff"]
NAMES = {"q,k,v,o": "attention", "mlp": "the MLP", "all": "all maps"}
BASE = "q,k,v,o"
METRICS = {"test/accuracy": ("test accuracy, points", 100, "right"), "test/loss": ("test loss", 1, "left")}


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run, with its curve; adapter: trained parameters, without the head's."""
    trainable, head = (np.array(record_values(tables, "parameters", name)) for name in ("trainable", "head"))
    sized = tables._replace(runs=tables.runs.assign(adapter=trainable - head))
    return select_columns(sized, [*KEPT, *curve_columns(tables.runs)])


def sets(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The arms by their targets, attention first."""
    found = split_arms(frame, ["lora.targets"])
    return {targets: found[targets] for targets in NAMES}


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(plotting.DOUBLE, 2.7))
    _windows(axes[0], frame)
    for ax, (metric, (title, scale, better)) in zip(axes[1:], METRICS.items(), strict=True):
        _differences(ax, frame, metric, scale)
        ax.set(xlabel=f"{title}:\ndifference from attention", title=f"{better} is better")
    axes[2].set_yticklabels([])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=len(NAMES))
    return figure


def _windows(ax: "Axes", frame: pd.DataFrame) -> None:
    """Validation loss against lr_A, a line per set of targets."""
    for colour, (targets, own) in zip(plotting.COLOURS, sets(frame).items(), strict=False):
        grid = own[own["stage"] == "grid"].groupby("optim.lr")["validation/loss"].agg(whole_mean)
        ax.plot(grid.index, grid, "o-", color=colour, lw=1, ms=4, label=NAMES[targets])
    ax.set(xscale="log", xlabel="lr$_A$", ylabel="validation loss")
    plotting.label_powers(ax.xaxis, [2.5e-4, 1e-3, 4e-3])
    plotting.show_lowest(ax, frame.loc[frame["stage"] == "grid", "validation/loss"])


def _differences(ax: "Axes", frame: pd.DataFrame, metric: str, scale: float) -> None:
    """The mean difference from attention over the fresh seeds, with its interval."""
    arms = sets(frame)
    others = [targets for targets in arms if targets != BASE]
    for place, (targets, colour) in enumerate(zip(others, plotting.COLOURS[1:], strict=False)):
        found = paired_difference(arms[targets], arms[BASE], metric)
        ends = [[scale * (found.estimate - found.low)], [scale * (found.high - found.estimate)]]
        ax.errorbar([scale * found.estimate], [place], xerr=np.clip(ends, 0, None), fmt="o", color=colour)
    ax.axvline(0, color="0.6", lw=0.6, ls=":")
    ax.locator_params(axis="x", nbins=6)
    ax.set_yticks(range(len(others)), [NAMES[targets] for targets in others])
    ax.set_ylim(-0.6, len(others) - 0.4)


def caption(frame: pd.DataFrame) -> str:
    confirm, grid = (frame[frame["stage"] == stage] for stage in ("confirm", "grid"))
    trials = " or ".join(map(str, grid.groupby("lora.targets").size().unique()))
    runs = f"{captions.seeds(grid)}{', so a point is one run' if grid['seed'].nunique() == 1 else ''}"
    budget = " or ".join(f"{n:,.0f}" for n in sorted(frame["adapter"].dropna().unique()))
    return (
        f"{shared(frame)}, LoRA (λ = 1), alpha = {frame['lora.alpha'].iloc[0]:g}, adapters of {budget} parameters "
        f"each. Left: rates tried ({trials} an arm, {runs}). Right: the best on fresh seeds "
        f"(n = {confirm['seed'].nunique()}), last step; bars: 95% interval of the difference, paired by seed (Student "
        f"t). {captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per set of targets: its size, its rate, its fresh scores, and its differences from attention alone."""
    arms = sets(frame)
    rows = []
    for targets, own in arms.items():
        size = {"targets": NAMES[targets], "adapter's parameters": f"{own['adapter'].iloc[0]:,.0f}"}
        rows.append({**size, **comparison_row(own, arms[BASE]), "interior": interior(own)})
    return pd.DataFrame(rows)


def questions(frame: pd.DataFrame) -> list[Question]:
    rows, others = frame[frame["stage"] == "confirm"], [targets for targets in NAMES if targets != BASE]
    claims = [
        gain(rows, targets, BASE, arm="lora.targets", by=["task"], text=NAMES[targets], paper="better")
        for targets in others
    ]
    where = f"({captions.tasks(frame)}, equal parameters, lr_A tuned for each)"
    return [Question(f"does LoRA on more maps beat attention alone {where}?", "LoRA Without Regret", "points", claims)]


if __name__ == "__main__":
    figures.main(__file__)
