"""The study `ratio_seeds`: what λ = 4 and 16 gain over λ = 1, on enough fresh seeds to decide.

`python analysis/ratio_seeds.py`: results/ratio_seeds.csv -> figures/ratio_seeds.{png,pdf}. The rates are those that
`ratio` selected, so the study has one stage, and each of its seeds is a fresh one.
"""

from typing import TYPE_CHECKING

import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures, study_module
from loralab.studies.forest import forest
from loralab.studies.pooled import Pooled, pooled_gain
from loralab.studies.questions import Question
from loralab.studies.ratios import arm, ratios
from loralab.studies.verdicts import ACCURACY_MARGIN, judged_row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

ratio = study_module.import_analysis("ratio")
assert ratio is not None, "analysis/ratio.py stands beside this file"
AXES, KEPT, settings_of, asked = ratio.AXES, ratio.KEPT, ratio.settings_of, ratio.questions
CLAIMED = (0.01, 0.02)  # LoRA+, abstract


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run, with the test examples that it got right."""
    runs: pd.DataFrame = tables.runs[KEPT]
    return runs.assign(correct=[tables.correct(run) for run in tables.runs["run"]])


def fresh(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs as a second stage: none of their seeds selected a rate."""
    return frame.assign(stage="confirm")


def gains(frame: pd.DataFrame, metric: str) -> dict[str, Pooled]:
    """By arm, its gain over λ = 1 in each setting and pooled."""
    runs, by = fresh(frame), ["task", "lora.init"]
    return {
        f"λ = {ratio:g}": pooled_gain(runs, ratio, 1, arm="lora.ratio", by=by, metric=metric)
        for ratio in ratios(frame)
        if ratio != 1
    }


def draw(frame: pd.DataFrame) -> "Figure":
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(plotting.DOUBLE, 2.8), sharey=True)
    forest(axes[0], gains(frame, "test/accuracy"), unit=0.01, margin=ACCURACY_MARGIN, claimed=CLAIMED)
    forest(axes[1], gains(frame, "test/loss"))
    for ax, label in zip(axes, ("gain in test accuracy, points", "change of test loss, nats"), strict=True):
        ax.set_xlabel(f"{label}, over λ = 1")
    for at, words in ((0.0, "counts as none"), (1.5, "LoRA+'s 1 to 2")):
        axes[0].text(at, 1.01, words, transform=axes[0].get_xaxis_transform(), ha="center", va="bottom")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=4)
    return figure


def caption(frame: pd.DataFrame) -> str:
    return (
        f"{captions.setting(frame)}, each λ at the rate that `ratio` selected. Differences from λ = 1 on "
        f"{captions.seeds(frame)} with 95% intervals, seeds and test items random (mixed model). "
        f"{captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per task, init and ratio: its rate, its scores, and its differences from λ = 1 with their verdict."""
    rows = []
    for task, init, of in settings_of(fresh(frame)):
        arms = {ratio: arm(of, ratio) for ratio in ratios(of)}
        for ratio, own in arms.items():
            scores = judged_row(own, arms[1], paper=CLAIMED[0])
            rows.append({"task": task, "init": init, "ratio": ratio, **scores})
    return pd.DataFrame(rows)


def questions(frame: pd.DataFrame) -> list[Question]:
    """The question of `ratio`, on these seeds."""
    found: list[Question] = asked(fresh(frame))
    return found


if __name__ == "__main__":
    figures.main(__file__)
