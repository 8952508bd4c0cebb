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
from loralab.studies.pooled import Pooled, pooled_gain
from loralab.studies.questions import Claim, Question
from loralab.studies.ratios import arm, forests, lowest, ratio_gains, ratios
from loralab.text import count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

SCORES = ["validation/loss", "validation/accuracy", "test/loss", "test/accuracy", "train/loss"]
AXES = ["seed", "task", "task.train_rows", "lora.init", "lora.ratio", "optim.lr", *captions.SETTING]
KEPT = ["hash", "stage", *AXES, "status", *SCORES, "seconds", "commit", "diff"]
PAPER = {"A": ("4 to 8", 2.0), "B": ("about 16", 4.0)}  # the best ratio and its doublings, by init


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
    several = len(list(settings_of(frame))) > 1
    seeds = count(confirm["seed"].nunique(), "fresh seed")
    both = "; pooled: mixed model, with errors of seeds and test items" if several else ""
    return (
        f"{captions.setting(frame)}{examples}. Differences from λ = 1 on {seeds}, "
        f"paired, 95%{both}. Each λ has the best of its rates ({trials} runs). Orange: LoRA+, abstract. "
        f"{captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per task, init and ratio: its selected rate, its fresh scores, and its differences from λ = 1."""
    rows = []
    for task, init, of in settings_of(frame):
        for ratio in ratios(of):
            scores = comparison_row(arm(of, ratio), arm(of, 1))
            rows.append({"task": task, "init": init, "ratio": ratio, **scores, "interior": interior(of, ratio)})
    return pd.DataFrame(rows)


def questions(frame: pd.DataFrame) -> list[Question]:
    """The lowest loss only where settings are pooled: the seeds of one do not identify a parabola's minimum."""
    settings, where = ["task", "lora.init"], f"({captions.tasks(frame)})"
    gains = ratio_gains(frame, settings)
    asked = [Question(f"does a λ above 1 gain accuracy over λ = 1 {where}?", "LoRA+, abstract", "points", gains)]
    inits = {str(init): rows for init, rows in frame.groupby("lora.init")}
    if len(inits) > 1:
        best = [Claim("all settings", lowest(frame, settings), "4 to 16", 2.0)]
        best += [Claim(f"init {init}", lowest(rows, ["task"]), *PAPER[init]) for init, rows in inits.items()]
        text, source = f"at which λ is the test loss lowest {where}?", "LoRA+, Figs 6, 17, 18"
        asked.append(Question(text, source, "doublings", best))
    return asked


if __name__ == "__main__":
    figures.main(__file__)
