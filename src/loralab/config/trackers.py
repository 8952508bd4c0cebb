"""The trackers that mirror a run, and what each of them needs: a package, and the settings that it has a use for."""

from importlib.util import find_spec

from loralab.errors import UserError

__all__ = ["TRACKERS", "check_tracker"]

TRACKERS = ("wandb", "tensorboard", "mlflow", "trackio", "none")
# Of these the package is an extra of the same name; wandb comes with loralab.
_EXTRAS = ("tensorboard", "mlflow", "trackio")


def check_tracker(*, name: str, mode: str, entity: str | None) -> None:
    """Raises UserError where the tracker's package is not installed, and for a setting that only W&B has."""
    if name not in _EXTRAS:
        return
    if mode not in ("auto", "disabled"):
        raise UserError(
            f"tracker.mode: got {mode}; with tracker={name} it is auto or disabled: online and offline are W&B's"
        )
    if entity is not None:
        raise UserError(f"tracker.entity: got {entity!r}; only W&B has entities, so leave it null with tracker={name}")
    if mode == "auto" and not _installed(name):
        raise UserError(
            f"tracker: got {name}, which is not installed; run: pip install 'loralab[{name}]', or take tracker=none"
        )


def _installed(package: str) -> bool:
    """A folder of this name in the current one, such as a store of the tracker's files, is no package."""
    found = find_spec(package)
    return found is not None and found.origin is not None
