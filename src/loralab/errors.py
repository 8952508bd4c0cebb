"""The one error class of ours: a mistake that the user can mend. Every room may import it."""


class UserError(ValueError):
    """One line that names the dotted key, what was got, what is allowed and the nearest fix.

    The command line prints the line and exits with status 2; it never shows a traceback for it.
    """
