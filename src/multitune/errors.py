"""The exceptions that a user is meant to read: one line each, without a traceback on the command line."""


class UserError(ValueError):
    """A mistake in a recipe, a data file, a folder or an option.

    The message is one line that names the file and line or the key, says what is wrong and what is allowed. The
    command line prints it and exits with 2.
    """


class RunError(RuntimeError):
    """A run that its machine or its numbers ended: no space, no memory, losses that are not finite.

    The message is one line that says what would help; the newest checkpoint stays. The command line prints it and exits
    with 1. Every exception that is neither of the two is a defect of multitune and keeps its traceback.
    """
