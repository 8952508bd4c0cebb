"""The study `ratio_sql`: `ratio_decoder` on generated SQL, whose accuracy is that of the executed queries.

`python analysis/ratio_sql.py`: results/ratio_sql.csv -> figures/ratio_sql.{png,pdf}
"""

from typing import TYPE_CHECKING

import pandas as pd

from loralab.studies import figures, study_module

if TYPE_CHECKING:
    from loralab.studies.tables import Tables

decoder = study_module.import_analysis("ratio_decoder")
assert decoder is not None, "analysis/ratio_decoder.py stands beside this file"
EXECUTED = {f"{split}/execution_accuracy": f"{split}/accuracy" for split in ("validation", "test")}
SCORES = ["validation/loss", "test/loss", "train/loss", *EXECUTED]
AXES, KEPT, interior = decoder.AXES, decoder.KEPT, decoder.interior
draw, summary, columns_of, captioned, questions = (
    getattr(decoder, name) for name in ("draw", "summary", "reduce", "caption", "questions")
)


def reduce(tables: "Tables") -> pd.DataFrame:
    """The rows of `ratio_decoder`, with execution accuracy as the accuracy."""
    found: pd.DataFrame = columns_of(tables._replace(runs=tables.runs.rename(columns=EXECUTED)))
    return found


def caption(frame: pd.DataFrame) -> str:
    return f"{captioned(frame)} Accuracy: of the results of the queries."


if __name__ == "__main__":
    figures.main(__file__)
