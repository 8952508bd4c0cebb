"""A study of two stages, in a checkout and with its first stage finished; training of any study in this process."""

from pathlib import Path

import pytest

from loralab.sweeps.study import Study, open_study
from tests.small_runs import CONF, SMALL

SWEEPS = CONF.parent / "sweeps"
MEASURED = sorted(path.stem for path in SWEEPS.glob("*.yaml") if "      program: " in path.read_text())
NAME = "two_stages"
TEXT = """\
# @package _global_
# Whether a ratio of 16 is better, each arm with its own two learning rates; the better one on fresh seeds.
hydra:
  mode: MULTIRUN
  sweeper:
    study:
      claim: A ratio of 16 reaches a lower loss.
      metric: validation/loss
      command: python train.py sweeps=two_stages
      cost: 12 runs, seconds
    params:
      seed: [0, 1]
    arms:
      - {lora.ratio: 1, optim.lr: [0.001, 0.004]}
      - {lora.ratio: 16, optim.lr: [0.0005, 0.002]}
    confirm:
      by: [lora.ratio]
      select: validation/loss
      params: {seed: "range(100,102)"}
    smoke: {seed: [0]}
"""
SETTINGS = (*SMALL, "train.steps=3", "train.eval_every=3")
FIRST = [
    (seed, ratio, rate)
    for seed in (0, 1)
    for ratio, rates in ((1, (0.001, 0.004)), (16, (0.0005, 0.002)))
    for rate in rates
]


def write(folder: Path) -> Path:
    """Writes the study's file under `folder`/sweeps."""
    (folder / "sweeps").mkdir(parents=True)
    (folder / "sweeps" / f"{NAME}.yaml").write_text(TEXT)
    return folder


def checkout(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """A checkout in `folder` with the real conf/ and only this study in sweeps/; loralab uses it."""
    write(folder)
    (folder / "conf").symlink_to(CONF)
    patch.setattr("loralab.places.HERE", folder)
    patch.setattr("loralab.places.OURS", folder)
    patch.setattr("loralab.sweeps.study.CONF", folder / "conf")
    patch.setattr("loralab.studies.study_module.ANALYSIS", folder / "analysis")
    return folder


_trained: list[Path] = []


def train(study: Study) -> None:
    """Trains every run of both stages, one after the other in this process, which imports torch once."""
    from loralab.runs.run import run

    for job in study.grid:
        run(study.planned(job).config)
    for job in study.second_jobs():
        run(study.planned(job).config)


def first_stage(folders: pytest.TempPathFactory) -> Path:
    """A store with the first stage finished, trained once per session; not to be changed."""
    from loralab.runs.run import run

    if _trained:
        return _trained[0]
    with pytest.MonkeyPatch.context() as patch:
        folder = checkout(folders.mktemp("first_stage"), patch)
        with open_study(NAME, SETTINGS, store=folder / "store") as study:
            for job in study.grid:
                run(study.planned(job).config)
    _trained.append(folder / "store")
    return _trained[0]
