"""The study `ratio_decoder`: accuracy and loss of a pretrained decoder against the ratio λ, each λ at its own lr_A.

`python analysis/ratio_decoder.py`: results/ratio_decoder.csv -> figures/ratio_decoder.{png,pdf}. The losses in the
windows select the rates (stage grid); the comparisons use fresh seeds, on the test split (stage confirm).
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures
from loralab.studies.arms import comparison_row, interior, select_columns, shared
from loralab.studies.intervals import forest
from loralab.studies.questions import Question
from loralab.studies.ratios import ADVICE, BANDS, arm, difference, ratio_gains, ratios, tuned
from loralab.studies.thinned_curves import curve_columns
from loralab.studies.tuned_rates import tuned_arms

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

SCORES = ["validation/loss", "validation/accuracy", "test/loss", "test/accuracy", "train/loss"]
AXES = ["seed", "task", "lora.init", "lora.ratio", "optim.lr", *captions.SETTING]
KEPT = ["hash", "stage", *AXES, "status", *SCORES, "seconds", "commit", "diff"]
LABELS = {
    "test/accuracy": ("right is better", "accuracy over λ = 1 (points)"),
    "test/loss": ("left is better", "test loss over λ = 1 (nats)"),
}


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run, with its curve; runs on fresh seeds also record which test examples they got right."""
    return select_columns(tables, [*KEPT, *curve_columns(tables.runs)])


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    others = [ratio for ratio in ratios(frame) if ratio != 1]
    figure = plt.figure(figsize=(plotting.DOUBLE, 1 + len(others)))
    grid = figure.add_gridspec(len(others), 1 + len(BANDS), width_ratios=(1, 0.85, 0.85))
    windows = figure.add_subplot(grid[:, 0])
    _windows(windows, frame)
    for row, ratio in enumerate(others):
        for column, (metric, bands) in enumerate(BANDS.items()):
            ax = figure.add_subplot(grid[row, 1 + column])  # its own scale: one ratio may collapse
            forest(ax, [f"λ = {ratio:g}"], {"difference": [difference(frame, ratio, metric)]}, **bands)
            ax.locator_params(axis="x", nbins=6)
            words, unit = LABELS[metric]
            if row == 0:
                ax.set_title(words)
            if row == len(others) - 1:
                ax.set_xlabel(unit)
            if column:
                ax.set_yticklabels([])
    labels = [ax.get_legend_handles_labels() for ax in figure.axes[:2]]
    found = {label: handle for each in labels for handle, label in zip(*each, strict=True)}
    del found["difference"]
    figure.legend(list(found.values()), list(found), loc="outside upper left", ncols=len(found))
    return figure


def _windows(ax: "Axes", frame: pd.DataFrame) -> None:
    """Validation loss against lr_A, one line per ratio; a dot on the selected rate of each."""
    found = tuned(frame)
    for colour, (ratio, line) in zip(plotting.COLOURS, found.groupby("lora.ratio"), strict=False):
        ax.plot(line["optim.lr"], line["validation/loss"], color=colour, lw=1, label=f"λ = {ratio:g}")
        best = line.nsmallest(1, "validation/loss")
        ax.plot(best["optim.lr"], best["validation/loss"], "o", color=colour)
    ax.plot([], [], "o", color="0.4", label="selected")
    ax.set(xscale="log", xlabel="lr$_A$", ylabel="validation loss")
    plotting.show_lowest(ax, found["validation/loss"])


def caption(frame: pd.DataFrame) -> str:
    confirm, grid = (frame[frame["stage"] == stage] for stage in ("confirm", "grid"))
    trials = " or ".join(map(str, grid.groupby("lora.ratio").size().unique()))
    return (
        f"{shared(frame)}, init {'/'.join(frame['lora.init'].unique())}, r = alpha = {frame['lora.rank'].iloc[0]:g}. "
        f"Left: rates tried ({trials} runs a ratio, {captions.seeds(grid)}). Right: those on fresh "
        f"seeds (n = {confirm['seed'].nunique()}), last step; bars: 95% interval of the "
        f"difference from λ = 1, paired (Student t). {captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per ratio: its rates, its fresh scores, and its differences from λ = 1.

    c: lr_A sqrt(r λ s) of the tuned rate, a parabola's lowest point.
    """
    found = tuned_arms(frame, "ratio_decoder")
    constants = found["tuned"] * np.sqrt(found["lora.rank"] * found["lora.ratio"].astype(float) * found["s"])
    c = dict(zip(found["lora.ratio"], constants, strict=True))
    one, rows = arm(frame, 1), []
    for ratio in ratios(frame):
        row = comparison_row(one if ratio == 1 else arm(frame, ratio), one)
        own = {"c": f"{c.get(ratio, np.nan):.3g}", "interior": interior(frame, ratio)}
        rows.append({"ratio": ratio, **row, **own})
    return pd.DataFrame(rows)


def questions(frame: pd.DataFrame) -> list[Question]:
    pairs = [frame[frame["lora.ratio"].isin([1, ratio])] for ratio in ratios(frame)]
    gains = [claim for pair in pairs for claim in ratio_gains(pair, ["task"])]  # one of λ = 16 may collapse, others not
    gains.sort(key=lambda claim: claim.arm != f"λ = {ADVICE}")
    where = f"{captions.tasks(frame)}, {captions.NAMES.get(frame['model'].iloc[0], frame['model'].iloc[0])}"
    return [Question(f"does a λ above 1 gain accuracy over λ = 1 ({where})?", "LoRA+, abstract", "points", gains)]


if __name__ == "__main__":
    figures.main(__file__)
