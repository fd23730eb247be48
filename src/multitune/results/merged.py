"""What a merge of runs measured: merge.json."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from multitune.results.json_files import JsonFile
from multitune.results.run import Score, Scores, Sides

FILE = "merge.json"


@dataclass(frozen=True)
class MergedRun:
    """A run that went into a merge, and what its own results say.

    Attributes:
        folder: the run's.
        method: its name.
        seed: its seed.
        dev: the average of its shipped weights on dev, in percent.
        average: the averages over seen and over unseen languages of its test scores.
    """

    folder: str
    method: str
    seed: int
    dev: Score
    average: Sides[Score]


@dataclass(frozen=True)
class MergedPoint:
    """One point of a merge; scores in percent.

    Attributes:
        weight: the share of the way from the pretrained weights to the mean of the runs; 1 is that mean.
        dev: the average on dev.
        seen: the test scores of the languages that were trained on; null where a score is not finite.
        unseen: those of the others.
        average: the mean of the main score over languages, unweighted; null without such languages.
        drift: L2 distance from the pretrained weights, heads excluded; null where these were not asked for.
    """

    weight: float
    dev: Score
    seen: Scores
    unseen: Scores
    average: Sides[Score]
    drift: float | None


@dataclass(frozen=True)
class Merged(JsonFile):
    """The points between runs and their pretrained model that were scored; ``model/`` beside it is the chosen one.

    Attributes:
        runs: those that were merged; their mean is the point of weight 1.
        pretrained: the model that the points lie on the way to; null without one.
        metric: the score that averages are of.
        points: in the order in which they were asked for.
        chosen: the weight of the point that is best on dev, the first of equals.
        precision: of the forward pass.
        versions: of Python and the packages that decide the numbers, and how scores were computed.
        notes: what has to be said with the scores, a sentence each.
    """

    NAME: ClassVar[str] = FILE
    SCHEMA: ClassVar[int] = 1

    runs: list[MergedRun]
    pretrained: str | None
    metric: str
    points: list[MergedPoint]
    chosen: float
    precision: str
    versions: dict[Annotated[str, "name"], str]
    notes: list[str] = field(default_factory=list)

    @property
    def best(self) -> MergedPoint:
        """The chosen point."""
        return next(point for point in self.points if point.weight == self.chosen)
