"""The study `ratio_seeds`: what λ = 4 and 16 gain over λ = 1, on enough fresh seeds to decide.

`python analysis/ratio_seeds.py`: results/ratio_seeds.csv -> figures/ratio_seeds.{png,pdf,txt}. The rates are those that
`ratio` selected, so the study has one stage, and each of its seeds is a fresh one. `ratio_imdb_seeds` and `ratio_fine`
have the same analysis; of a study of two stages, the second is judged.
"""

from typing import TYPE_CHECKING

import pandas as pd

from loralab.studies import captions, figures, study_module
from loralab.studies.arms import comparison_row
from loralab.studies.questions import Question
from loralab.studies.ratios import arm, ratios
from loralab.studies.thinned_curves import curve_columns

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from loralab.studies.tables import Tables

ratio = study_module.import_analysis("ratio")
assert ratio is not None, "analysis/ratio.py stands beside this file"
AXES, KEPT, settings_of, drawn, asked = ratio.AXES, ratio.KEPT, ratio.settings_of, ratio.draw, ratio.questions


def reduce(tables: "Tables") -> pd.DataFrame:
    """One row per run, with the test examples that it got right, and its curve if it was validated on its way."""
    runs: pd.DataFrame = tables.runs[[*KEPT, *curve_columns(tables.runs)]]
    return runs.assign(correct=[tables.correct(run) for run in tables.runs["run"]])


def fresh(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs whose seeds selected no rate: those of the second stage, or all where there is none."""
    second = frame[frame["stage"] == "confirm"]
    return second if len(second) else frame.assign(stage="confirm")


def draw(frame: pd.DataFrame) -> "Figure":
    figure: Figure = drawn(fresh(frame))
    return figure


def caption(frame: pd.DataFrame) -> str:
    one_stage = len(fresh(frame)) == len(frame)
    rate = "the rate that an earlier study selected" if one_stage else "the best rate of its own window"
    examples = "".join(f" on {int(rows):,} examples" for rows in frame["task.train_rows"].dropna().unique())
    return (
        f"{captions.setting(frame)}{examples}, each λ at {rate}. Differences from λ = 1 on "
        f"{fresh(frame)['seed'].nunique()} fresh seeds, paired, 95%; pooled: mixed model with errors of seeds and test "
        f"items. Orange: LoRA+, abstract. {captions.provenance(frame)}."
    )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per task, init and ratio: its rate, its scores, and its differences from λ = 1."""
    return pd.DataFrame(
        {"task": task, "init": init, "ratio": ratio, **comparison_row(arm(of, ratio), arm(of, 1))}
        for task, init, of in settings_of(fresh(frame))
        for ratio in ratios(of)
    )


def questions(frame: pd.DataFrame) -> list[Question]:
    """Those of `ratio`, on these seeds."""
    found: list[Question] = asked(fresh(frame))
    return found


if __name__ == "__main__":
    figures.main(__file__)
