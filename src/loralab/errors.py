"""The error classes of ours. Every room may import them."""


class UserError(ValueError):
    """One line that names the dotted key, what was got, what is allowed and the nearest fix.

    The command line prints the line and exits with status 2; it never shows a traceback for it.
    """


class RunsFailed(Exception):  # noqa: N818  # it says what happened, not what is wrong
    """Some runs of a sweep failed, and the user was told which; the command line adds nothing and exits with 1."""
