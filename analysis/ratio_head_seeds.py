"""The study `ratio_head_seeds`: `ratio_head` on enough fresh seeds to decide, at the rates that it selected.

`python analysis/ratio_head_seeds.py`: results/ratio_head_seeds.csv -> figures/ratio_head_seeds.{png,pdf,txt}
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from loralab.studies import captions, figures, study_module
from loralab.studies.arms import comparison_row
from loralab.studies.questions import Question
from loralab.studies.ratios import arm, ratios

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

head, ratio, seeds = (study_module.import_analysis(name) for name in ("ratio_head", "ratio", "ratio_seeds"))
assert head is not None and ratio is not None and seeds is not None, "their files stand beside this one"
AXES, KEPT, by_head, drawn, captioned = head.AXES, head.KEPT, head.by_head, head.draw, head.caption
asked, fresh = ratio.questions, seeds.fresh


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run, with the test examples that it got right."""
    runs: pd.DataFrame = tables.runs[KEPT]
    return runs.assign(correct=[tables.correct(run) for run in tables.runs["run"]])


def draw(frame: pd.DataFrame) -> "Figure":
    figure: Figure = drawn(fresh(frame))
    return figure


def caption(frame: pd.DataFrame) -> str:
    return str(captioned(fresh(frame)))


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per head and ratio: its rate, its scores, and its differences from λ = 1 with the same head."""
    return pd.DataFrame(
        {"head": label, "ratio": ratio, **comparison_row(arm(of, ratio), arm(of, 1))}
        for label, of in by_head(fresh(frame))
        for ratio in ratios(of)
    )


def questions(frame: pd.DataFrame) -> list[Question]:
    """That of `ratio` where the head's rate is lr_A; `ratio_seeds` has the other half."""
    text = f"does a λ above 1 gain accuracy where the head's rate is lr_A ({captions.tasks(frame)}, init A)?"
    return [replace(asked(dict(by_head(fresh(frame)))["head at lr_A"])[0], text=text)]


if __name__ == "__main__":
    figures.main(__file__)
