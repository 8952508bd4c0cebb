"""The study `width_features`: delta1 and delta2 of an update, and the features Z_A, against the width n.

`python analysis/width_features.py`: results/width_features.csv -> figures/width_features.{png,pdf} (LoRA+, Theorem 1)
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures
from loralab.studies.arms import shared, widths
from loralab.studies.questions import Claim, Question
from loralab.studies.stats import Interval, mean_interval, slope, whole_mean
from loralab.theory.gamma import exponents

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

AXES = ["seed", "task", "lora.init", "lora.ratio", "optim.lr", *captions.SETTING]
QUANTITIES = {"delta1": "delta1", "delta2": "delta2", "zA": "z"}  # with their names in the width calculus
KEPT = ["hash", "stage", *AXES, "status", "width", "step", *QUANTITIES, "delta3", "seconds", "commit", "diff"]
TITLES = {
    "delta1": "$\\delta_1 = B\\, \\Delta Z_A$: A learns",
    "delta2": "$\\delta_2 = \\Delta B\\, Z_A$: B learns",
    "zA": "features $Z_A$",
}
STEP = 10
SAME_AT, LR = 128, 3.2e-3  # the width at which all rules have the same lr_A lr_B, the square of this rate
RULES = {"constant": (0.0, 0.0), "root": (-0.5, -0.5), "theory": (-1.0, 0.0)}
"""Which powers of n lr_A and lr_B are."""
WORDS = {"constant": "$lr_A = lr_B = c$", "root": "$lr_A = lr_B = c/\\sqrt{n}$", "theory": "$lr_A = c/n$, $lr_B = c$"}
TOLERANCE = 0.25  # tolerance of an exponent: the rules' exponents differ by a half
CLAIMED = [  # rule, quantity
    ("theory", "delta1"),
    ("theory", "delta2"),
    ("theory", "zA"),
    ("constant", "delta1"),
    ("constant", "delta2"),
    ("root", "zA"),
]


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run and probed step: the medians over the adapted maps."""
    runs = tables.runs.assign(width=widths(tables))
    probed = tables.curves[tables.curves["split"] == "probe"]
    probed = probed.assign(quantity=probed["name"].str.rpartition("/")[2])
    kept = probed[probed["quantity"].isin(KEPT)]
    values = kept.pivot_table(index=["run", "step"], columns="quantity", values="value", aggfunc="median")
    return runs.drop(columns="step").merge(values.reset_index(), on="run", how="left").reindex(columns=KEPT)


def expected(rule: str, quantity: str, step: int) -> float:
    """The calculus's power of n, for sign-like updates (Adam's) and init A; -inf for a zero quantity."""
    return exponents("A", "sign", RULES[rule], step)[-1][QUANTITIES[quantity]]


def of_rule(frame: pd.DataFrame, rule: str) -> pd.DataFrame:
    """The rows at a rule's rates; a run is in two rules if they agree, as all equal rates do at n = SAME_AT."""
    away = frame["width"] / SAME_AT
    if rule == "theory":
        return frame[frame["lora.ratio"] != 1]
    wanted = LR * away ** RULES[rule][0]
    return frame[(frame["lora.ratio"] == 1) & np.isclose(frame["optim.lr"], wanted, rtol=1e-3)]


def table(frame: pd.DataFrame, rule: str, quantity: str, step: int) -> pd.DataFrame:
    """One row per seed, one column per width."""
    rows = of_rule(frame, rule)
    return rows[rows["step"] == step].pivot(index="seed", columns="width", values=quantity)


def powers(frame: pd.DataFrame, rule: str, quantity: str, step: int) -> list[float]:
    """For each seed the slope of log2 of a quantity against log2 n; NaN if it is zero or unknown at a width."""
    found = table(frame, rule, quantity, step)
    widths = np.log2(found.columns.to_numpy(dtype=float))
    values = found.to_numpy(dtype=float)
    known = np.isfinite(values).all(axis=1) & (np.nan_to_num(values) > 0).all(axis=1)
    return [slope(widths, np.log2(row)).estimate if good else np.nan for row, good in zip(values, known, strict=True)]


def power(frame: pd.DataFrame, rule: str, quantity: str, step: int) -> Interval:
    """The mean of `powers` with Student's interval over the seeds; NaN if a seed has none."""
    found = powers(frame, rule, quantity, step)
    return mean_interval(found) if np.isfinite(found).all() else Interval(np.nan, np.nan, np.nan, len(found), np.nan)


def steps(frame: pd.DataFrame) -> list[int]:
    return [int(step) for step in sorted(frame["step"].dropna().unique())]


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(plotting.DOUBLE, 3.9))
    grid = figure.add_gridspec(2, len(QUANTITIES), height_ratios=(2.2, 1))
    for column, quantity in enumerate(QUANTITIES):
        ax = figure.add_subplot(grid[0, column])
        for at, rule in enumerate(RULES):
            _against_width(ax, frame, rule, quantity, at)
        ax.set_title(TITLES[quantity])
        ax.set_xlabel("width n")
        if column == 0:
            ax.set_ylabel(f"root mean square, step {STEP}")
            ax.plot([], [], "o-", color="0.4", ms=2.5, label="line: mean, dots: seeds")
            figure.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=len(RULES) + 1)
    _exponents(figure.add_subplot(grid[1, :]), frame)
    return figure


def _against_width(ax: "Axes", frame: pd.DataFrame, rule: str, quantity: str, at: int) -> None:
    """One dot per seed; the line joins the geometric means."""
    found = table(frame, rule, quantity, STEP)
    widths, colour = found.columns.to_numpy(dtype=float), plotting.COLOURS[at]
    positive = found.where(found > 0)
    for _, row in positive.iterrows():
        ax.plot(widths * 2 ** (0.12 * (at - 1)), row, "o", color=colour, ms=2.5, alpha=0.5, mew=0)
    ax.plot(widths, [2.0 ** whole_mean(np.log2(positive[n])) for n in positive], color=colour, label=WORDS[rule])
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    plotting.label_powers(ax.xaxis, sorted(frame["width"].unique()))


def _exponents(ax: "Axes", frame: pd.DataFrame) -> None:
    """A table of the powers of n at STEP, a row for each rule, beside the calculus's."""
    texts = []
    for rule in RULES:
        found = {quantity: power(frame, rule, quantity, STEP) for quantity in QUANTITIES}
        cells = [
            (f"{each.estimate:.2f} [{each.low:.2f}, {each.high:.2f}]", f"{expected(rule, quantity, STEP):g}")
            for quantity, each in found.items()
        ]
        texts.append([cell for pair in cells for cell in pair])
    columns = [name for title in TITLES.values() for name in (f"power of n, {title.partition(' ')[0]}$", "theory")]
    columns[-2] = "power of n, $Z_A$"
    shown = ax.table(
        texts, rowLabels=list(WORDS.values()), colLabels=columns, loc="center", edges="horizontal", cellLoc="center",
        colWidths=[0.21, 0.07] * len(QUANTITIES),
    )  # fmt: skip
    shown.auto_set_font_size(False)
    shown.set_fontsize(plotting.SIZE)
    shown.scale(1, 1.4)
    for at in range(len(RULES)):
        shown[at + 1, -1].get_text().set_color(plotting.COLOURS[at])
    ax.set_axis_off()


def caption(frame: pd.DataFrame) -> str:
    wide = f"backbones {', '.join(f'{n:g}' for n in sorted(frame['width'].unique()))} wide"
    return (
        f"{shared(frame.assign(model=wide))}, constant rates that agree at n = {SAME_AT}; r = alpha = 8 on q and v, "
        f"init {'/'.join(frame['lora.init'].unique())}. Median over the adapted maps; {captions.seeds(frame)} "
        f"(dots), geometric means (lines). Power: slope of the logarithms, 95% over seeds. "
        f"{captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per rule and quantity: the power of n at each probed step, and the calculus's at STEP."""
    rows = []
    for rule in RULES:
        for quantity in QUANTITIES:
            row: dict[str, object] = {"rule": rule, "quantity": quantity, "theory": expected(rule, quantity, STEP)}
            for step in steps(frame):
                found = power(frame, rule, quantity, step)
                row[f"step {step}"] = f"{found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}]"
            rows.append(row)
    return pd.DataFrame(rows)


def questions(frame: pd.DataFrame) -> list[Question]:
    rates = {
        "constant": "equal rates that do not fall with n",
        "root": "equal rates as n^-1/2",
        "theory": "lr_A as 1/n and lr_B as 1",
    }
    claims = []
    for rule, quantity in CLAIMED:
        number = expected(rule, quantity, STEP)
        found = power(frame, rule, quantity, STEP)
        claims.append(Claim(f"{quantity} at {rates[rule]}", found, f"{number:g}", number, exact=True))
    text = f"as which power of n do A's and B's moves change the features (step {STEP})?"
    return [Question(text, "LoRA+, Proposition 2 and Theorem 1", "", claims)]


if __name__ == "__main__":
    figures.main(__file__)
