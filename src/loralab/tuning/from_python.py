"""`loralab.tune`: a session from Python, in a process of its own, whose lines are passed on."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loralab.config.from_python import settings
from loralab.errors import RunsFailed, UserError
from loralab.sweeps.child import passed_on
from loralab.tuning.command import command
from loralab.tuning.options import Options
from loralab.tuning.tuned import Tuned

__all__ = ["tune"]


def tune(*overrides: str | Mapping[str, Any], store: str | Path | None = None, **options: Any) -> Tuned:
    """The recommendation of `loralab tune OVERRIDES`: settings, plateau, command, trials as a table, figure.

    overrides: texts as of train.py ("task=trec"), or mappings of keys to values ({"lora.rank": 16}); store: where runs/
    is, by default $LORALAB_STORE or outputs; options: search, space, budget, trials, seeds, ratio, confirm, name and
    figure, as those of the command. The session's lines go to standard error.

    Raises UserError for a mistake, and RunsFailed where the search could not go on; both with its one line. If this is
    interrupted, runs write their checkpoints, and the same call goes on.
    """
    try:
        chosen = Options(**options)
    except TypeError as error:
        raise UserError(f"tune: {str(error).partition(' ')[2]}; its options are those of the command") from error
    place = Path(store if store is not None else os.environ.get("LORALAB_STORE", "outputs"))
    status, printed, errors = passed_on(command(settings(overrides, {}), chosen, place))
    if status:
        line = next((line for line in reversed(errors) if line.startswith("error: ")), f"error: exit status {status}")
        raise (UserError if status == 2 else RunsFailed)(line.removeprefix("error: ").strip())
    return Tuned.read(Path(printed.splitlines()[-1]))
