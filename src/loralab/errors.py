"""The error classes of loralab. Any module may import them."""


class UserError(ValueError):
    """A user's mistake, in one line: the dotted key, its value, what is allowed and the nearest fix.

    The command line prints the line, without a traceback, and exits with status 2.
    """


class RunsFailed(Exception):  # noqa: N818  # named for the event
    """Some runs of a sweep failed and have been printed; the command line prints nothing more and exits with 1."""
