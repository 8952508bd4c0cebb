"""loralab: a laboratory for LoRA and LoRA+. `loralab train` trains, the other commands look at what was trained."""

__version__ = "0.1.0"

TYPE_CHECKING = False  # as typing's, which takes longer to import than all that a command imports before its signals
if TYPE_CHECKING:
    from loralab.from_python import Run, load_run, sweep, train
    from loralab.studies.tables import load_study
    from loralab.tuning.from_python import tune

__all__ = ["Run", "load_run", "load_study", "sweep", "train", "tune"]

_MODULES = {
    **dict.fromkeys(("Run", "load_run", "sweep", "train"), "loralab.from_python"),
    "load_study": "loralab.studies.tables",
    "tune": "loralab.tuning.from_python",
}


def __getattr__(name: str) -> object:
    """`from loralab import train` imports pandas and Hydra, and torch when it is called; `import loralab` nothing."""
    if name not in _MODULES:
        raise AttributeError(f"module 'loralab' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
