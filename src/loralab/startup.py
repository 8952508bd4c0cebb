"""What every command does first, before it imports anything that takes long: signals and streams.

It imports little itself, and the streams only after the signals.
"""

import os
import signal

TYPE_CHECKING = False  # as in loralab/__init__.py
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["begin", "refuse_undecoded"]


def begin() -> None:
    """Prepares this process; call it once, as the first statement of a command.

    Until a run takes the signals over (training/signals.py), Ctrl-C ends the process at once, as SIGTERM does: Python's
    own handler raises KeyboardInterrupt, which an import in C can lose, and the process goes on with half of numpy.
    A process that was started with Ctrl-C ignored, as in the background of a script, goes on ignoring it.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads sleep, so that contended cores don't stall torch
    from loralab.streams import prepare

    prepare()


def refuse_undecoded(texts: "Iterable[str]") -> None:
    """Raises UserError for an argument or a folder whose bytes Python could not decode: no file could record it."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            from loralab.errors import UserError

            written = os.fsencode(text)
            try:
                line = f"{written.decode()}: this locale has no such letters; set PYTHONUTF8=1"
            except UnicodeDecodeError:
                line = f"{text}: is not in UTF-8; rename the file or folder"
            raise UserError(line) from None
