"""The study `rank`: accuracy and loss against the rank, for sets of targets and for rules for alpha.

`python analysis/rank.py`: results/rank.csv -> figures/rank.{png,pdf} (LoRA, Tables 6 and 18)
"""

from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures
from loralab.studies.arms import (
    against,
    comparison_row,
    confirm_runs,
    interior,
    select_columns,
    shared,
    split_arms,
)
from loralab.studies.questions import Question, gain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

SCORES = ["validation/loss", "validation/accuracy", "test/loss", "test/accuracy"]
AXES = ["seed", "task", "lora.init", "lora.ratio", "lora.scaling", "optim.lr", *captions.SETTING]
KEPT = ["hash", "stage", *AXES, "status", *SCORES, "seconds", "commit", "diff"]
RULES = {"constant": "alpha = r", "alpha/r": "alpha = 8", "alpha/sqrt_r": "alpha = sqrt(8r)"}  # by lora.scaling
TARGETS = ("q", "q,v", "q,k,v,o", "all")
RULED = "q,v"  # the rank at which the rules are compared
METRICS = {"test/accuracy": "test accuracy", "test/loss": "test loss"}
PAPER = ("q,v", "q,k,v,o")  # targets of the paper's table

Arms = dict[tuple[str, str, float], pd.DataFrame]  # by targets, lora.scaling, rank


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run; runs on fresh seeds also record which test examples they got right."""
    return select_columns(tables, KEPT)


def arms_of(frame: pd.DataFrame) -> Arms:
    return split_arms(frame.sort_values("lora.rank"), ["lora.targets", "lora.scaling", "lora.rank"])


def over_ranks(arms: Arms, targets: str, rule: str) -> dict[float, pd.DataFrame]:
    """The arms of one set of targets and one rule, by rank."""
    return {rank: own for (of, by, rank), own in arms.items() if (of, by) == (targets, rule)}


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    arms = arms_of(frame)
    figure, axes = plt.subplots(2, 2, figsize=(plotting.DOUBLE * 0.8, 3.9))
    for ax, (metric, title) in zip(axes[0], METRICS.items(), strict=True):
        for at, targets in enumerate(TARGETS):
            line, shift = over_ranks(arms, targets, "constant"), 2 ** (0.16 * (at - 1.5))
            pairs = [(own, line[max(line)]) for own in line.values()]
            against(
                ax, [rank * shift for rank in line], pairs, metric, targets.replace(",", ", "), plotting.COLOURS[at]
            )
        ax.set_ylabel(f"{title}, fresh seeds")
    rates, losses = axes[1]
    for at, (rule, label) in enumerate(RULES.items()):
        colour, line = plotting.COLOURS[at], over_ranks(arms, RULED, rule)
        places = [rank * 2 ** (0.16 * (at - 1)) for rank in line]
        rates.plot(
            places, [confirm_runs(own)["optim.lr"].iloc[0] for own in line.values()], "o-", color=colour, label=label
        )
        pairs = [(own, arms[RULED, "constant", rank]) for rank, own in line.items()]
        against(losses, places, pairs, "test/loss", label, colour)
    rates.set_yscale("log", base=2)
    plotting.label_powers(rates.yaxis, sorted({y for line in rates.lines for y in line.get_ydata()}))
    rates.set_ylabel("selected lr$_A$")
    losses.set_ylabel("test loss, fresh seeds")
    for at, title, side in ((0, "top: targets, alpha = r", "left"), (1, "bottom: rule for alpha, on q and v", "right")):
        lines, where = axes[at][0].get_legend_handles_labels(), cast(Any, f"outside upper {side}")
        figure.legend(*lines, loc=where, ncols=4, title=title, title_fontsize=6, alignment="left")
    for ax in axes.ravel():
        _by_rank(ax, sorted(frame["lora.rank"].unique()))
    return figure


def _by_rank(ax: "Axes", ranks: list[float]) -> None:
    ax.set_xscale("log", base=2)
    plotting.label_powers(ax.xaxis, ranks)
    ax.set_xlabel("rank r")


def caption(frame: pd.DataFrame) -> str:
    confirm, grid = (frame[frame["stage"] == stage] for stage in ("confirm", "grid"))
    trials = grid.groupby(["lora.targets", "lora.scaling", "lora.rank"]).size().unique()
    return (
        f"{shared(frame)}, LoRA (λ = 1), init {'/'.join(frame['lora.init'].unique())}; rates selected for each by "
        f"validation loss ({' or '.join(map(str, trials))} runs, {captions.seeds(grid)}). Fresh seeds "
        f"(n = {confirm['seed'].nunique()}), last step. Top: alpha = r; bars: 95% interval of the difference from the "
        "largest rank. Bottom: rules for alpha, on q and v; bars: of the difference from alpha = r at the same rank. "
        f"All paired by seed (Student t), unadjusted for their number. {captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per arm: its selected rate, its fresh scores, and its differences from the largest rank of its line."""
    arms = arms_of(frame)
    rows = []
    for targets in TARGETS:
        for rule, label in RULES.items():
            line = over_ranks(arms, targets, rule)
            for rank, own in line.items():
                name = {"targets": targets, "rule": label, "rank": rank}
                rows.append({**name, **comparison_row(own, line[max(line)]), "interior": interior(own)})
    return pd.DataFrame(rows)


def questions(frame: pd.DataFrame) -> list[Question]:
    rows = frame[(frame["stage"] == "confirm") & (frame["lora.scaling"] == "constant")]
    rows, by, paper = rows[rows["lora.targets"].isin(PAPER)], ["lora.targets"], "MNLI: 91.3 against 91.4"
    claims = [
        gain(rows, rank, 64, arm="lora.rank", by=by, text=f"r = {rank}", paper=paper, number=-0.001, exact=True)
        for rank in (1, 4)
        if {rank, 64} <= set(rows["lora.rank"])
    ]
    text = f"is a small rank as good as 64 ({captions.tasks(frame)}, lr_A tuned for each)?"
    return [Question(text, "LoRA, Table 6", "points", claims)] if claims else []


if __name__ == "__main__":
    figures.main(__file__)
