"""The one exception for mistakes that a user can mend."""


class UserError(ValueError):
    """A mistake in a recipe, a data file, a folder or an option.

    The message is one line that names the file and line or the key, says what is wrong and what is allowed. The
    command line prints it and exits with 2; every other exception is a defect of multitune and keeps its traceback.
    """
