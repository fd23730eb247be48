"""metrics.jsonl while its run goes on."""

from pathlib import Path

from multitune.results.metrics import Back, Event, Skip, event_line, read_event
from multitune.storage.atomic import write_text

FAULTS = (Skip, Back)
"""Events that stay in the log when a run goes back to before them."""


class MetricsLog:
    """A run's log. Checkpoints take it along, and a resumed run begins with the log of that moment.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, event: Event) -> None:
        """Append an event's line."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(event_line(event))

    def text(self) -> str:
        """All lines."""
        return self._path.read_text(encoding="utf-8")

    def restore(self, text: str) -> None:
        """Make ``text`` all that is in the log."""
        write_text(self._path, text)

    def go_back(self, text: str) -> None:
        """Restore ``text``, with which the log begins, but keep what later lines tell of faults."""
        later = (read_event(line) for line in self.text()[len(text) :].split("\n") if line)
        self.restore(text + "".join(event_line(event) for event in later if isinstance(event, FAULTS)))
