"""How a report shows a test record: written by who knows the kind of task, read by the report."""

from dataclasses import dataclass

LONGEST = 400
"""Characters after which a text is cut."""


@dataclass(frozen=True)
class Shown:
    """A test record and what was predicted of it, as text for a reader.

    Attributes:
        text: what the model has read.
        reference: what is right.
        prediction: what the model says.
        right: whether it is; None where right and wrong are not all there is.
    """

    text: str
    reference: str
    prediction: str
    right: bool | None

    def cut(self) -> "Shown":
        """The same, each text cut after ``LONGEST`` characters."""
        return Shown(_cut(self.text), _cut(self.reference), _cut(self.prediction), self.right)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
