"""loralab: a laboratory for LoRA and LoRA+. `train.py` trains a run, `loralab` looks at what was trained."""

__version__ = "0.1.0"

TYPE_CHECKING = False  # as typing's, which takes longer to import than all that a command imports before its signals
if TYPE_CHECKING:
    from loralab.runs.load import load_run
    from loralab.studies.tables import load_study
    from loralab.tuning.from_python import tune

__all__ = ["load_run", "load_study", "tune"]


def __getattr__(name: str) -> object:
    """`from loralab import load_study` imports pandas and Hydra, `load_run` torch; nothing else of loralab should."""
    if name == "load_run":
        from loralab.runs.load import load_run

        return load_run
    if name == "load_study":
        from loralab.studies.tables import load_study

        return load_study
    if name == "tune":
        from loralab.tuning.from_python import tune

        return tune
    raise AttributeError(f"module 'loralab' has no attribute {name!r}")
