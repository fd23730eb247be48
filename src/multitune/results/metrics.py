"""What happens while a run trains: metrics.jsonl, an event a line."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypedDict

from multitune.errors import UserError, unknown
from multitune.results.json_files import as_line, plain, read_lines, typed
from multitune.results.probes import GradientSimilarity, Layer
from multitune.results.run import Language, Score, Scores

FILE = "metrics.jsonl"
SCHEMA = 1


class When(TypedDict):
    """The attributes of every event."""

    gradients: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Event:
    """What every line has, beside ``event``, which names its kind.

    Attributes:
        gradients: gradient computations so far.
        seconds: seconds trained so far, over all sessions of the run.
    """

    EVENT: ClassVar[str]

    gradients: int
    seconds: float

    def measured(self) -> dict[str, Any]:
        """All but ``gradients`` and ``seconds``, as the line has it."""
        return {key: value for key, value in plain(self).items() if key not in Event.__annotations__}


@dataclass(frozen=True, kw_only=True)
class Train(Event):
    """The newest training steps.

    Attributes:
        loss: the mean since the last such line; null where it is not finite.
        learning_rate: of the last step.
    """

    EVENT: ClassVar[str] = "train"

    loss: float | None
    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class Validate(Event):
    """A validation of the weights that would ship at this moment.

    Attributes:
        average: the mean of the main score over languages, in percent; null where it is not finite.
        drift: L2 distance of the weights from the pretrained ones, heads excluded; null where it is not finite.
        dev: the scores of each language, in percent; null where one is not finite.
    """

    EVENT: ClassVar[str] = "validate"

    average: Score
    drift: float | None
    dev: Scores


@dataclass(frozen=True, kw_only=True)
class Probe(Event, GradientSimilarity):
    """A probe of the weights that would ship at this moment.

    Attributes:
        layers: the mean over pairs of each layer's cosines, from the input to the head.
        drift: L2 distance of the pretrained weights from where they began; null where it is not finite.
        drift_by_layer: that of each layer; the root of the sum of their squares is ``drift``.
        probe_seconds: seconds that the run's probes have taken so far, this one included.
        share: ``probe_seconds`` divided by ``seconds``.
    """

    EVENT: ClassVar[str] = "probe"

    layers: dict[Layer, float]
    drift: float | None
    drift_by_layer: dict[Layer, float | None]
    probe_seconds: float
    share: float

    @property
    def cosine_by_layer(self) -> dict[str, float]:
        """Layer -> the mean over pairs."""
        return self.layers


@dataclass(frozen=True)
class FaultyBatch:
    """A mini-batch whose loss or gradient is not finite.

    Attributes:
        epoch: of its language.
        position: mini-batches of the epoch up to this one; where they mix languages, those of the run.
        rows: its records, by their place in the training split.
    """

    epoch: int
    position: int
    rows: list[int]


@dataclass(frozen=True, kw_only=True)
class Skip(Event):
    """A step that was skipped.

    Attributes:
        what: what was not finite: ``loss`` or ``gradient``.
        batches: the mini-batches at fault.
    """

    EVENT: ClassVar[str] = "skip"

    what: str
    batches: dict[Language, FaultyBatch]


EVENTS: dict[str, type[Event]] = {kind.EVENT: kind for kind in (Train, Validate, Probe, Skip)}


def event_line(event: Event) -> str:
    """An event as a line of the file."""
    first = {"schema": SCHEMA, "gradients": event.gradients, "event": event.EVENT, "seconds": event.seconds}
    return as_line(first | event.measured())


def read_events(folder: Path) -> Iterator[Event]:
    """The events of a run folder's file, in their order.

    Raises:
        UserError: there is none, or a line of it is damaged or of another schema.
    """
    for where, content in read_lines(folder / FILE):
        yield _event(content, where)


def _event(content: dict[str, Any], where: str) -> Event:
    name = str(content.get("event"))
    if name not in EVENTS:
        raise UserError(f"{where}: {unknown('event', name, EVENTS)}")
    return typed(content, EVENTS[name], SCHEMA, where)
