"""The study `ratio_imdb`: `ratio` on longer texts, with the same figure, summary and claims.

`python analysis/ratio_imdb.py`: results/ratio_imdb.csv -> figures/ratio_imdb.{png,pdf}
"""

from dataclasses import replace

import pandas as pd

from loralab.studies import figures, study_module
from loralab.studies.claims import Claim

ratio = study_module.import_analysis("ratio")
assert ratio is not None, "analysis/ratio.py stands beside this file"
AXES, KEPT, interior = ratio.AXES, ratio.KEPT, ratio.interior
reduce, draw, caption, summary, judged_as = ratio.reduce, ratio.draw, ratio.caption, ratio.summary, ratio.claims


def claims(frame: pd.DataFrame) -> list[Claim]:
    return [replace(claim, study="ratio_imdb") for claim in judged_as(frame)]


if __name__ == "__main__":
    figures.main(__file__)
