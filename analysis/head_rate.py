"""The study `head_rate`: what λ gains with the head's rate tuned too, beside a head that is pinned or rides with lr_A.

`python analysis/head_rate.py`: results/head_rate.csv and, where it is there, results/ratio_head_seeds.csv, which has
the other two heads on the same seeds -> figures/head_rate.{png,pdf,txt}
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures, study_module
from loralab.studies.arms import comparison_row, interior, select_columns
from loralab.studies.questions import Question
from loralab.studies.ratios import arm, forests, ratios
from loralab.studies.stats import whole_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

ratio, others = (study_module.import_analysis(name) for name in ("ratio", "ratio_head_seeds"))
assert ratio is not None and others is not None, "analysis/ratio.py and analysis/ratio_head_seeds.py stand beside it"
AXES, KEPT, by_head, fresh, asked = others.AXES, others.KEPT, others.by_head, others.fresh, ratio.questions
HEAD, LOSS = "optim.head_lr", "validation/loss"
MARKS = (("o-", "0.7"), ("s-", "0.4"), ("^-", "0.0"))  # of a λ; colours tell the heads apart


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run; runs on fresh seeds also record which test examples they got right."""
    return select_columns(tables, KEPT)


def heads(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Each way to train the head with its rows: this study's first, then those of ratio_head_seeds."""
    path = study_module.ANALYSIS / "results" / "ratio_head_seeds.csv"
    found = {"head tuned": frame}
    return found | dict(by_head(fresh(pd.read_csv(path)))) if path.is_file() else found


def tuned(rows: pd.DataFrame) -> "pd.Series[float]":
    """By the head's rate, the lowest mean validation loss over lr_A on the selection seeds, for one λ."""
    means = rows[rows["stage"] == "grid"].groupby([HEAD, "optim.lr"])[LOSS].agg(whole_mean)
    return means.groupby(HEAD).min()


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(plotting.DOUBLE, 2.3), width_ratios=(1.2, 1.2, 1))
    # the head that rides with lr_A collapses, which would set the scale; the figure of ratio_head_seeds shows it
    forests(axes[:2], {name: rows for name, rows in heads(frame).items() if name != "head at lr_A"})
    _losses(axes[2], frame)
    return figure


def _losses(ax: "Axes", frame: pd.DataFrame) -> None:
    rates = sorted(frame[HEAD].unique())
    for (mark, grey), ratio in zip(MARKS, ratios(frame), strict=False):
        losses = tuned(frame[frame["lora.ratio"] == ratio])
        ax.plot(losses.index, losses, mark, color=grey, label=f"λ = {ratio:g}")
    ax.set(xscale="log", xlabel="rate of the head", title="loss, at its best lr$_A$")
    plotting.label_powers(ax.xaxis, rates[::2])
    ax.legend()


def caption(frame: pd.DataFrame) -> str:
    seeds = arm(frame, 1)["seed"].nunique()
    return (
        f"{captions.tasks(frame)}, {captions.setting(frame)}, init {'/'.join(frame['lora.init'].unique())}. Left: "
        f"differences from λ = 1 with the head trained alike, on {seeds} fresh seeds, paired, 95%. Right: validation "
        f"loss on the selection seeds, against the head's rate. {captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per ratio: the selected rates, the scores on fresh seeds, and their differences from λ = 1."""
    rows = []
    for ratio in ratios(frame):
        own = arm(frame, ratio)
        at = frame[(frame["lora.ratio"] == ratio) & (frame[HEAD] == own[HEAD].iloc[0])]
        inside = interior(at) and frame[HEAD].min() < own[HEAD].iloc[0] < frame[HEAD].max()
        scores = comparison_row(own, arm(frame, 1))
        rows.append({"ratio": ratio, "head": own[HEAD].iloc[0], **scores, "interior": inside})
    return pd.DataFrame(rows)


def questions(frame: pd.DataFrame) -> list[Question]:
    """That of `ratio`, with the head tuned."""
    text = f"does a λ above 1 gain accuracy where the head's rate is tuned as well as lr_A ({captions.tasks(frame)})?"
    return [replace(asked(frame)[0], text=text)]


if __name__ == "__main__":
    figures.main(__file__)
