"""The one exception for mistakes that a user can mend."""


class UserError(Exception):
    """A mistake in the command line, the configuration, the data or a file of the user's.

    Its text says what was found, what was expected and what to do next. Commands print it without a
    traceback and exit with status 2.
    """
