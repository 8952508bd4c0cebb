"""analysis/results/<study>.csv -> analysis/figures/<study>.{png,pdf}. Reads CSV and configuration alone; no torch.

A study's analysis has `reduce` (or, where nothing is trained, `wanted` and `measure`), `draw`, `caption`, `summary` and
`claims`; what their figures share stands here: widths, style, colours, ticks, and the lines beneath that say what was
run.
"""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pandas as pd

from loralab.config.overrides import to_override
from loralab.errors import UserError
from loralab.plotting import footnote, save, style
from loralab.studies import results, study_module
from loralab.sweeps.study import open_study, studies

__all__ = [
    "NAMES",
    "SETTING",
    "code",
    "draw",
    "main",
    "module",
    "names",
    "provenance",
    "seeds",
    "setting",
    "tasks",
    "whole_mean",
]

NAMES = {"rotten_tomatoes": "Rotten Tomatoes", "trec": "TREC", "imdb": "IMDb", "minilm": "MiniLM", "tiny": "tiny"}
SETTING = ("model", "lora.rank", "lora.alpha", "lora.targets", "train.steps", "train.epochs", "train.batch_size")


def names() -> list[str]:
    """The studies that have an analysis with a figure and a CSV to draw it from."""
    return [name for name in studies() if (study_module.ANALYSIS / "results" / f"{name}.csv").is_file()]


def module(name: str) -> ModuleType:
    """A study's analysis, analysis/<name>.py or the one that its file names; UserError where it has none."""
    with open_study(name) as study:
        own = study_module.analysis_of(study)
    found = study_module.analysis(own)
    if found is None:
        raise UserError(f"study {name!r} has no analysis/{own}.py; these have a figure: {', '.join(names()) or 'none'}")
    return found


def draw(name: str, overrides: Sequence[str] = (), *, store: Path = Path("outputs")) -> list[Path]:
    """Draws a study's figure from its CSV; the files that it wrote.

    Without overrides, analysis/results/<name>.csv to analysis/figures/; with those that a part of the study was
    collected with, the store's results/ to its figures/. Raises UserError where the CSV lacks a run that is wanted.
    """
    analysis = module(name)
    path = results.target(name, overrides, store)
    frame = results.load(name, *overrides, path=path)
    root = store if overrides else study_module.ANALYSIS
    with style():
        figure = analysis.draw(frame)
        footnote(figure, analysis.caption(frame))
        return save(figure, root / "figures" / path.relative_to(root / "results"))


def main(file: str) -> None:
    """`python analysis/<study>.py`: the figure from the committed CSV."""
    import sys

    try:
        print(*draw(Path(file).stem), sep="\n")
    except UserError as error:
        sys.exit(f"error: {error}")


def setting(frame: pd.DataFrame) -> str:
    """`MiniLM, LoRA with r = alpha = 8 on q and v, 100 steps of 32`: what runs share, for a caption; from SETTING."""

    def one(key: str) -> str:
        values = frame[key].dropna().unique()
        return " or ".join(
            NAMES.get(value, value) if isinstance(value, str) else to_override(value) for value in values
        )

    same = (frame["lora.rank"] == frame["lora.alpha"]).all()
    alpha = "" if same else f", alpha = {one('lora.alpha')}"
    rank = f"r = {'alpha = ' if same else ''}{one('lora.rank')}{alpha}"
    length = f"{one('train.steps')} steps" if frame["train.steps"].notna().all() else f"{one('train.epochs')} epochs"
    targets = " and ".join(one("lora.targets").rsplit(",", 1)).replace(",", ", ")
    return f"{one('model')}, LoRA with {rank} on {targets}, {length} of {one('train.batch_size')}"


def provenance(frame: pd.DataFrame) -> str:
    """`432 runs (3 diverged), code 1a2b3c4 (+1 other)`: the end of a caption."""
    runs = frame.drop_duplicates("hash")
    diverged = int((runs["status"] == "diverged").sum())
    return f"{len(runs)} runs ({diverged} diverged), {code(runs)}"


def code(frame: pd.DataFrame) -> str:
    """`code 1a2b3c4 (+1 other)`: the commits of the rows, the commonest first; the caption's end where none trained."""
    versions = frame["commit"].fillna("unknown").astype(str).str[:7].value_counts().index
    others = f" (+{len(versions) - 1} other)" if len(versions) > 1 else ""
    return f"code {versions[0]}{others}"


def whole_mean(values: "pd.Series[float]") -> float:
    """The mean over the seeds; NaN where one of them diverged: what is left would flatter the cell."""
    return float(values.mean(skipna=False))


def tasks(frame: pd.DataFrame) -> str:
    """`TREC`, or several with commas."""
    return ", ".join(NAMES.get(name, name) for name in frame["task"].unique())


def seeds(frame: pd.DataFrame) -> str:
    """`3 seeds`, `1 seed`."""
    count = frame["seed"].nunique()
    return f"{count} seed{'s' if count != 1 else ''}"
