"""analysis/results/<study>.csv -> analysis/figures/<study>.{png,pdf}. Reads CSV and configuration only; no torch."""

from collections.abc import Sequence
from pathlib import Path

from loralab.errors import UserError
from loralab.plotting import footnote, save, style
from loralab.studies import results, study_module

__all__ = ["draw", "main"]


def draw(name: str, overrides: Sequence[str] = (), *, store: Path = Path("outputs")) -> list[Path]:
    """Draws a study's figure from its CSV and returns the written files.

    Without overrides: analysis/results/<name>.csv to analysis/figures/. With overrides that a part of the study was
    collected with: the store's results/ to its figures/. Raises UserError if the CSV lacks a run.
    """
    module = study_module.load_module(name)
    path = results.target(name, overrides, store)
    frame = results.load_results(name, *overrides, path=path)
    root = store if overrides else study_module.ANALYSIS
    with style():
        figure = module.draw(frame)
        footnote(figure, module.caption(frame))
        return save(figure, root / "figures" / path.relative_to(root / "results"))


def main(file: str) -> None:
    """`python analysis/<study>.py`: the figure from the committed CSV."""
    import sys

    try:
        print(*draw(Path(file).stem), sep="\n")
    except UserError as error:
        sys.exit(f"error: {error}")
