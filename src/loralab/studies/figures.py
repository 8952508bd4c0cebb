"""analysis/results/<study>.csv -> analysis/figures/<study>.{png,pdf,txt}; the text is the caption.

Reads CSV and configuration only; no torch.
"""

from collections.abc import Sequence
from pathlib import Path

from loralab import plotting
from loralab.errors import UserError
from loralab.studies import results, study_module

__all__ = ["draw", "main"]


def draw(
    name: str,
    overrides: Sequence[str] = (),
    *,
    store: Path = Path("outputs"),
    stem: str | None = None,
    to: Path | None = None,
) -> list[Path]:
    """Draws a study's figure from its CSV (`results.target`) and returns the written files.

    They go to analysis/figures/, those of a CSV in the store to the store's figures/, or to the file `to`. Raises
    UserError if the CSV lacks a run.
    """
    module = study_module.load_module(name)
    path = results.target(name, overrides, store, stem=stem)
    root = study_module.ANALYSIS if path.is_relative_to(study_module.ANALYSIS) else store
    beside = root / "figures" / path.relative_to(root / "results")
    file = beside.with_suffix(".png") if to is None else plotting.named_file(to)
    frame = results.load_results(name, *overrides, path=path)
    settings = f" Settings: {' '.join(overrides)}." if overrides else ""
    with plotting.style():
        return plotting.save(module.draw(frame), file, f"{module.caption(frame)}{settings}")


def main(file: str) -> None:
    """`python analysis/<study>.py`: the figure from the committed CSV."""
    import sys

    try:
        print(*draw(Path(file).stem), sep="\n")
    except UserError as error:
        sys.exit(f"error: {error}")
