"""The study `ratio_imdb`: `ratio` on longer texts, with the same figure, summary and questions.

`python analysis/ratio_imdb.py`: results/ratio_imdb.csv -> figures/ratio_imdb.{png,pdf}
"""

from loralab.studies import figures, study_module

ratio = study_module.import_analysis("ratio")
assert ratio is not None, "analysis/ratio.py stands beside this file"
AXES, KEPT, interior = ratio.AXES, ratio.KEPT, ratio.interior
reduce, draw, caption, summary, questions = ratio.reduce, ratio.draw, ratio.caption, ratio.summary, ratio.questions


if __name__ == "__main__":
    figures.main(__file__)
