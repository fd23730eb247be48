"""The exceptions that a user is meant to read: one line each, without a traceback on the command line."""

import difflib
import signal
from collections.abc import Iterable

HEAD, TAIL = 700, 250
"""Characters of a longer message that are kept."""
_KINDS = {
    type(None): "nothing",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a mapping",
}
FEW = 16
"""Names that are listed beside the one that was probably meant."""


def as_line(text: str) -> str:
    """One line that a terminal shows as it is: control characters escaped, the middle of a long text left out."""
    return _shortened(printable(_shortened(text)))


def printable(text: str) -> str:
    """The text with control characters and the like escaped, so that it cannot drive a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_utf8(text: str) -> bool:
    """Whether UTF-8 can hold a text: not half of a surrogate pair, nor a byte of a file's name that is not UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _shortened(text: str) -> str:
    return text if len(text) <= HEAD + TAIL else f"{text[:HEAD]} … {text[-TAIL:]}"


def kind_of_value(value: object) -> str:
    """What a value of a recipe or a data file is, in words."""
    return _KINDS.get(type(value), f"of type {type(value).__name__}")


class UserError(ValueError):
    """A mistake in a recipe, a data file, a folder or an option.

    The message is one line that names the file and line or the key, says what is wrong and what is allowed. The
    command line prints it and exits with 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(as_line(message))


class RunError(RuntimeError):
    """A run that its machine or its numbers ended: no space, no memory, losses that are not finite.

    The message is one line that says what would help; the newest checkpoint stays. The command line prints it and exits
    with 1. Every exception that is neither of the two is a defect of multitune and keeps its traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(as_line(message))


class DivergedError(RunError):
    """A run whose losses, gradients or weights are not finite: another rate or other data would help, a retry not."""


class AlreadySaid(RunError):
    """Another rank of the run has had an error first, and has said what it was.

    The command line exits with 1, or as for ``Interrupted`` where that is the cause.
    """

    def __init__(self) -> None:
        super().__init__("another rank of the run has said why it ended")


class Interrupted(Exception):
    """Ctrl-C, SIGTERM or SIGHUP asked the run to end; its checkpoint and its model are saved.

    Attributes:
        signal: which of them it was.
    """

    def __init__(self, message: str, number: signal.Signals) -> None:
        super().__init__(message)
        self.signal = number

    @classmethod
    def among(cls, finished: int, runs: int, number: signal.Signals) -> "Interrupted":
        """What to say where several runs were to be made, and some of them are finished."""
        return cls(f"stopped; {finished} of {runs} runs are finished, and the same command goes on from there", number)


def unknown(what: str, name: str, allowed: Iterable[str], *, meant: str | None = None) -> str:
    """``unknown key 'buget' (did you mean 'budget'?)`` in one line.

    All that is allowed follows where there are few, or where nothing is like the name.

    Args:
        what: the kind of thing that has the name.
        name: what was given.
        allowed: the names that there are.
        meant: the one that was meant, where that is known; else the one that is spelt most like it.
    """
    names = list(allowed)
    lower = {each.lower(): each for each in names}
    near = [meant] if meant else [lower[each] for each in difflib.get_close_matches(name.lower(), lower, n=1)]
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    listed = f"; allowed: {', '.join(names) or 'none'}" if not near or len(names) <= FEW else ""
    return f"unknown {what} {name!r}{hint}{listed}"
