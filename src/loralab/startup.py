"""What every command does first, before it imports anything that takes long: signals and streams.

It imports little itself, and the streams only after the signals.
"""

import os
import signal

__all__ = ["begin"]


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
