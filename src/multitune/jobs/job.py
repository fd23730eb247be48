"""A run as a job of another process, and how it may end."""

import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multitune.errors import DivergedError, RunError, UserError
from multitune.recipe import Recipe


@dataclass(frozen=True)
class Job:
    """One run in a folder of its own, which goes on from what is there.

    Attributes:
        name: of the run, for a person.
        recipe: with precision and threads settled.
        out: the run folder.
        track: a tracker that shows its curves live, if any.
        language: the one whose model is trained, of a method with a model for each; None trains all that there is.
        after: names of jobs that have to be done first.
        again: whether a try of it has ended before its end, perhaps without its process, which then still saves.
    """

    name: str
    recipe: Recipe
    out: Path
    track: str | None = None
    language: str | None = None
    after: tuple[str, ...] = ()
    again: bool = False

    def to_line(self) -> str:
        """The job as a line that ``Order.of`` reads."""
        order = {
            "recipe": self.recipe.model_dump(mode="json"),
            "out": str(self.out.absolute()),
            "track": self.track,
            "language": self.language,
            "again": self.again,
            "folder": os.getcwd(),
            "level": logging.getLogger("multitune").level,
        }
        return json.dumps(order) + "\n"


Message = list[Any]
"""What a job tells while it runs, as JSON: the name of a method of ``jobs.display.Board``, then its arguments."""
Tell = Callable[[Message], None]


@dataclass(frozen=True)
class Ended:
    """How a job has ended: done, or with an error."""

    job: Job
    error: Exception | None = None


KINDS = {kind.__name__: kind for kind in (UserError, RunError, DivergedError)}


def error_of(kind: str, text: str, trace: str) -> Exception:
    """The error that ended a job in another process.

    Args:
        kind: the name of its class; a fault of the program has one that is not among those for users.
        text: its message.
        trace: where it was raised, for a fault of the program.
    """
    if kind in KINDS:
        return KINDS[kind](text)
    error: Exception = type(kind, (RuntimeError,), {})(text)
    error.add_note(trace)
    return error
