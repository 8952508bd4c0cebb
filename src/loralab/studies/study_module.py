"""The module analysis/<study>.py of a study."""

import importlib.util
from pathlib import Path
from types import ModuleType

from loralab.config.compose import CONF
from loralab.errors import UserError
from loralab.sweeps.study import Study

__all__ = ["ANALYSIS", "analysis", "analysis_of", "program"]

ANALYSIS = CONF.parent / "analysis"


def analysis(name: str) -> ModuleType | None:
    """The module analysis/<name>.py, or None: `reduce` says what its CSV keeps, `draw` makes its figure of that."""
    path = ANALYSIS / f"{name}.py"
    if not path.is_file():
        return None
    spec = importlib.util.spec_from_file_location(f"analysis_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def analysis_of(study: Study) -> str:
    """The name of its analysis: its own, or that of its file's `analysis: X` or `program: analysis/X.py`."""
    if study.spec.program is not None:
        return Path(study.spec.program).stem
    if "analysis" in study.spec.study:
        return study.spec.study["analysis"]
    return study.name or ""  # a sweep of the command line alone has none


def program(study: Study) -> ModuleType:
    found = analysis(analysis_of(study))
    if found is None:
        raise UserError(
            f"hydra.sweeper.study.program: {study.spec.program} is not there; it is analysis/{study.name}.py"
        )
    return found
