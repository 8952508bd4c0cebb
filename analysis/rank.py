"""The study `rank`: accuracy and loss against the rank, for sets of targets and for rules for alpha.

`python analysis/rank.py`: results/rank.csv -> figures/rank.{png,pdf} (LoRA, Tables 6 and 18)
"""

from typing import TYPE_CHECKING

import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures
from loralab.studies.arms import (
    comparison_row,
    confirm_runs,
    interior,
    level,
    select_columns,
    shared,
    split_arms,
)
from loralab.studies.intervals import dots
from loralab.studies.questions import Question, gain

if TYPE_CHECKING:
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
    figure, axes = plt.subplots(2, 2, figsize=(plotting.DOUBLE, 4.4))
    for at, targets in enumerate(TARGETS):
        line = over_ranks(arms, targets, "constant")
        places = [rank * 2 ** (0.16 * (at - 1.5)) for rank in line]
        for ax, metric in zip(axes[0], METRICS, strict=True):
            found = [level(own, metric) for own in line.values()]
            dots(ax, places, found, plotting.COLOURS[at], targets.replace(",", ", "), join="-")
    rates, losses = axes[1]
    for at, (rule, label) in enumerate(RULES.items()):
        colour, line = plotting.COLOURS[at], over_ranks(arms, RULED, rule)
        places = [rank * 2 ** (0.16 * (at - 1)) for rank in line]
        rates.plot(places, [confirm_runs(own)["optim.lr"].iloc[0] for own in line.values()], "o-", color=colour)
        dots(losses, places, [level(own, "test/loss") for own in line.values()], colour, label, join="-")
    rates.set_yscale("log", base=2)
    plotting.label_powers(rates.yaxis, sorted({y for line in rates.lines for y in line.get_ydata()}))
    axes[0][0].set_ylabel("test accuracy")
    axes[0][0].set_title("a) by the maps that LoRA adapts (alpha = r)")
    rates.set_ylabel("best lr$_A$")
    rates.set_title("b) by the rule for alpha (on q and v)")
    for ax, title in ((axes[0][1], "LoRA on"), (losses, "rule")):
        ax.set_ylabel("test loss")
        ax.legend(title=title, loc="center left", bbox_to_anchor=(1, 0.5), alignment="left")
    for ax in axes.ravel():
        ax.set_xscale("log", base=2)
        plotting.label_powers(ax.xaxis, sorted(frame["lora.rank"].unique()))
        ax.set_xlabel("rank r")
    return figure


def caption(frame: pd.DataFrame) -> str:
    confirm, grid = (frame[frame["stage"] == stage] for stage in ("confirm", "grid"))
    trials = " or ".join(map(str, grid.groupby(["lora.targets", "lora.scaling", "lora.rank"]).size().unique()))
    return (
        f"{shared(frame)}, LoRA (λ = 1), init {'/'.join(frame['lora.init'].unique())}; the best of {trials} runs each, "
        f"on {confirm['seed'].nunique()} fresh seeds, last step; bars: 95% interval of each mean (Student t). "
        f"{captions.provenance(frame)}."
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


def row_keys(frame: pd.DataFrame) -> pd.DataFrame:
    named = {"targets": frame["lora.targets"], "rule": frame["lora.scaling"].map(RULES), "rank": frame["lora.rank"]}
    return pd.DataFrame(named)


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
