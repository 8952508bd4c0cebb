"""W&B's unstable settings. Written for wandb 0.19.0 and 0.31.0."""

from typing import Any

__all__ = ["quiet_settings"]


def quiet_settings() -> Any:
    """wandb.Settings for a run that only logs: no console, no git, no system statistics.

    A setting that this release does not know is left at its default.
    """
    import wandb

    wanted = {"console": "off", "disable_git": True, "x_disable_stats": True}
    known = set(wandb.Settings.model_fields)
    return wandb.Settings(**{name: value for name, value in wanted.items() if name in known})
