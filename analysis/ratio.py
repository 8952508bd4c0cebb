"""The study `ratio`: accuracy and loss against the ratio λ, with lr_A tuned in a window for each λ.

`python analysis/ratio.py`: results/ratio.csv -> figures/ratio.{png,pdf}. The losses in the windows select the rates
(stage grid); the comparisons use fresh seeds, on the test split (stage confirm).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures
from loralab.studies.arms import comparison_row, interior, select_columns
from loralab.studies.claims import Claim
from loralab.studies.pooled import Pooled, pooled_gain
from loralab.studies.questions import Question
from loralab.studies.ratios import arm, difference, forests, optimum, ratios
from loralab.studies.ratios import best_ratio as chosen
from loralab.studies.stats import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

SCORES = ["validation/loss", "validation/accuracy", "test/loss", "test/accuracy", "train/loss"]
AXES = ["seed", "task", "task.train_rows", "lora.init", "lora.ratio", "optim.lr", *captions.SETTING]
KEPT = ["hash", "stage", *AXES, "status", *SCORES, "seconds", "commit", "diff"]
ADVICE = 16  # LoRA+'s fixed ratio
PAPER = {
    "A": "above 1: 4 to 8, so 2 to 3 doublings",
    "B": "above 1: about 16, so 4 doublings",
}  # the best ratio, by init


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run; runs on fresh seeds also record which test examples they got right."""
    return select_columns(tables, KEPT)


def settings_of(frame: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Each task and init with its rows."""
    for (task, init), rows in frame.groupby(["task", "lora.init"]):
        yield str(task), str(init), rows


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    settings = {f"{captions.NAMES.get(task, task)}, init {init}": rows for task, init, rows in settings_of(frame)}
    height = 0.12 * (len(settings) + 1) * (len(ratios(frame)) - 1) + 1.1
    figure, axes = plt.subplots(1, 2, figsize=(plotting.DOUBLE, height))
    forests(axes, settings, (lambda *of: pooled(frame, *of).effect) if len(settings) > 1 else None)
    return figure


def pooled(frame: pd.DataFrame, ratio: float, metric: str) -> Pooled:
    """A ratio's gain over λ = 1 on fresh seeds, pooled over the tasks and inits."""
    confirm = frame[frame["stage"] == "confirm"]
    return pooled_gain(confirm, ratio, 1, arm="lora.ratio", by=["task", "lora.init"], metric=metric)


def caption(frame: pd.DataFrame) -> str:
    confirm, grid = (frame[frame["stage"] == stage] for stage in ("confirm", "grid"))
    trials = " or ".join(map(str, grid.groupby(["task", "lora.init", "lora.ratio"]).size().unique()))
    examples = "".join(f" on {int(rows):,} examples" for rows in frame["task.train_rows"].dropna().unique())
    return (
        f"{captions.setting(frame)}{examples}. Differences from λ = 1 on {confirm['seed'].nunique()} fresh seeds, "
        f"paired, 95%; pooled: mixed model with errors of seeds and test items. Each λ has the best of its rates "
        f"({trials} runs). Orange: LoRA+, abstract. {captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per task, init and ratio: its selected rate, its fresh scores, and its differences from λ = 1."""
    rows = []
    for task, init, of in settings_of(frame):
        for ratio in ratios(of):
            scores = comparison_row(arm(of, ratio), arm(of, 1))
            rows.append({"task": task, "init": init, "ratio": ratio, **scores, "interior": interior(of, ratio)})
    return pd.DataFrame(rows)


def claims(frame: pd.DataFrame) -> list[Claim]:
    found = []
    for task, init, rows in settings_of(frame):
        where = f"{captions.NAMES.get(task, task)}, init {init}"
        advice = difference(rows, ADVICE, "test/accuracy")
        found.append(
            Claim(
                "ratio",
                "LoRA+, section 5",
                f"λ = {ADVICE} beats λ = 1 in accuracy ({where})",
                "1 to 2%",
                advice,
                0.0,
                "points",
            )
        )
        at = optimum(rows)
        lowest = Interval(at.at, at.low, at.high, len(arm(rows, 1)), at.p)
        text = f"a parabola in log λ through the arms' mean test losses is lowest above λ = 1 ({where})"
        found.append(Claim("ratio", "LoRA+, Figs 6, 17, 18", text, PAPER[init], lowest, 0.0, "doublings"))
        top, overall = chosen(rows, above=1), chosen(rows)
        note = "" if overall == top else f"; {overall:g} had the lowest validation loss of all"
        text = f"the best λ above 1, here {top:g}, beats λ = 1 by a point of accuracy or more ({where}{note})"
        better = difference(rows, top, "test/accuracy", null=0.01)
        found.append(Claim("ratio", "LoRA+, abstract", text, "1 to 2%", better, 0.01, "points"))
    return found


def questions(frame: pd.DataFrame) -> list[Question]:
    confirm = frame[frame["stage"] == "confirm"]

    def gain(ratio: float, metric: str) -> Pooled:
        return pooled_gain(confirm, ratio, 1, arm="lora.ratio", by=["task", "lora.init"], metric=metric)

    above = [ratio for ratio in ratios(frame) if ratio > 1]
    return [
        Question(
            "does a λ above 1 gain accuracy over λ = 1, with lr_A tuned for each?",
            "LoRA+, abstract",
            "1 to 2%",
            0.01,
            {f"λ = {ratio:g}": gain(ratio, "test/accuracy") for ratio in above},
            {f"λ = {ratio:g}": gain(ratio, "test/loss").effect for ratio in above},
        )
    ]


if __name__ == "__main__":
    figures.main(__file__)
