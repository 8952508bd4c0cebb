"""`loralab study new NAME`: sweeps/NAME.yaml and analysis/NAME.py from templates that run unchanged."""

import re
from pathlib import Path

from loralab.config.checks import file_name
from loralab.errors import UserError
from loralab.files import write_text
from loralab.studies import study_module
from loralab.sweeps.study import folder
from loralab.text import align

__all__ = ["next_steps", "write_study"]

RESERVED = ("all", "new", "none")  # reserved: each has another meaning in place of a study's name

SWEEP = """\
# @package _global_
# What NAME asks: how the validation loss depends on the ratio lr_B / lr_A, at one rate lr_A.
defaults:
  - override /model: minilm
  - override /task: rotten_tomatoes

train:                      # any key of conf/config.yaml may stand here: what all runs share
  steps: 100
  epochs: null
  eval_every: 100

hydra:
  sweeper:
    study:                  # for people; each may be left out
      claim: A ratio above 1 reaches a lower validation loss within 100 steps.
      metric: validation/loss
      margin: 0.01 nats     # what `questions` of the analysis count as no difference
    params:                 # one run for each combination
      lora.ratio: [1, 4, 16]
      seed: [0, 1]
    smoke:                  # `smoke=true`: the same study in seconds
      model: tiny
      task.train_rows: 64
      task.eval_rows: 64
      train.steps: 4
      train.precision: fp32
"""

ANALYSIS = '''\
"""The study `NAME`: the validation loss against the ratio.

`python analysis/NAME.py`: analysis/results/NAME.csv -> analysis/figures/NAME.{png,pdf}
"""

from typing import TYPE_CHECKING

import pandas as pd

from loralab import plotting
from loralab.studies import captions, figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AXES = ["seed", "task", "lora.ratio", *captions.SETTING]  # columns of the CSV, whether or not the sweep varies them


def draw(frame: pd.DataFrame) -> "Figure":
    """Each run as a dot, and the mean over the seeds as a line; frame: one row per run."""
    import matplotlib.pyplot as plt

    means = frame.groupby("lora.ratio")["validation/loss"].mean()
    figure, ax = plt.subplots(figsize=(plotting.SINGLE, 2.2))
    ax.plot(frame["lora.ratio"], frame["validation/loss"], ".", color="0.6")
    ax.plot(means.index, means, "o-")
    ax.set_xscale("log", base=2)
    plotting.label_powers(ax.xaxis, means.index)
    ax.set_xlabel("ratio λ = lr$_B$ / lr$_A$")
    ax.set_ylabel("validation loss")
    return figure


# reduce, caption, summary and questions have defaults; src/loralab/studies/study_module.py says what each is given.

if __name__ == "__main__":
    figures.main(__file__)
'''


def write_study(name: str) -> list[Path]:
    """Writes the two files and returns their paths; UserError for an invalid or existing name."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in RESERVED:
        raise UserError(
            f"study new: got {name!r}; a name has small letters, digits and _, begins with a letter, "
            f"and is none of {', '.join(RESERVED)}"
        )
    file_name("study new", name)
    texts = {folder() / f"{name}.yaml": SWEEP, study_module.ANALYSIS / f"{name}.py": ANALYSIS}
    for path in texts:
        if path.exists():
            raise UserError(f"study new: {path} is there already; choose another name, or remove it")
    for path, text in texts.items():
        write_text(path, text.replace("NAME", name))
    return list(texts)


def next_steps(name: str) -> list[str]:
    """The next commands for the user, one per line."""
    steps = (
        (f"loralab study {name} smoke=true", "its smallest size: trained, collected and drawn in under a minute"),
        (f"python train.py sweeps={name} --dry-run", "lists its runs"),
        (f"loralab study {name}", f"trains it, writes analysis/results/{name}.csv, and draws it"),
    )
    return ["", *align(steps, text=2)]
