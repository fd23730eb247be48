"""metrics.jsonl while its run goes on."""

from pathlib import Path

from multitune.results.metrics import Event, event_line
from multitune.storage.atomic import write_text


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
