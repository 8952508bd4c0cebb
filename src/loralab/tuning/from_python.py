"""`loralab.tune`: a session from Python, in a process of its own, whose lines are passed on."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from loralab.config.literal import literal
from loralab.config.overrides import to_override
from loralab.errors import RunsFailed, UserError
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
    texts: list[str] = []
    for each in overrides:
        texts += [each] if isinstance(each, str) else [f"{k}={to_override(literal(v))}" for k, v in each.items()]
    try:
        chosen = Options(**options)
    except TypeError as error:
        raise UserError(f"tune: {str(error).partition(' ')[2]}; its options are those of the command") from error
    place = Path(store if store is not None else os.environ.get("LORALAB_STORE", "outputs"))
    status, printed, errors = _passed_on(command(texts, chosen, place))
    if status:
        line = next((line for line in reversed(errors) if line.startswith("error: ")), f"error: exit status {status}")
        raise (UserError if status == 2 else RunsFailed)(line.removeprefix("error: ").strip())
    return Tuned.read(Path(printed.splitlines()[-1]))


def _passed_on(arguments: Sequence[str]) -> tuple[int, str, list[str]]:
    """The exit status of a process, its standard output, and the lines of its standard error, printed here too."""
    errors: list[str] = []
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as child:
        assert child.stdout is not None and child.stderr is not None
        reader = threading.Thread(target=_print, args=(child.stderr, errors), daemon=True)
        reader.start()
        try:
            printed = child.stdout.read()
            status = child.wait()
        except KeyboardInterrupt:
            child.send_signal(signal.SIGINT)
            raise  # once it has ended
        finally:
            reader.join()
    return status, printed, errors


def _print(stream: IO[str], lines: list[str]) -> None:
    for line in stream:
        lines.append(line)
        print(line, end="", file=sys.stderr, flush=True)
