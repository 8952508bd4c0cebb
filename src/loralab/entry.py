"""The command line's frame around a Hydra function: the schema is registered, and a user's mistake is one line.

Exit status: 0 done, 2 a mistake of the user's, 130 or 143 interrupted (the same command goes on), 1 anything else.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from loralab.config import Config, from_hydra
from loralab.errors import UserError
from loralab.mistakes import explain

__all__ = ["launch", "train"]

ConfigStore.instance().store(name="schema", node=Config)


def train(composed: DictConfig) -> float | None:
    """Trains what Hydra composed, or finds it done; gives the primary metric of the best validation step."""
    config = from_hydra(composed)
    from loralab.run import run  # torch takes a second to import: a mistake above is told at once

    metrics = run(config)["metrics"]
    best = metrics["validation"]["best"]
    return None if best is None else best[metrics["primary"]]


def launch(command: Callable[[], Any]) -> None:
    """Runs a Hydra entry point and exits with the status that its end calls for.

    Hydra prints errors over several lines and exits with 1; asked for full errors, it raises them, and they are put
    in one line here. Who sets HYDRA_FULL_ERROR=1 sees the traceback.
    """
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        command()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        line = explain(error)
        if line is None or wants_traceback:
            raise
        sys.exit(_say(line))
    except BaseException as error:
        if isinstance(error, SystemExit) or not hasattr(error, "status"):
            raise
        sys.exit(error.status)


def _say(line: str) -> int:
    print(f"error: {line}", file=sys.stderr)
    return 2
