"""What a run reports: results.json."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from multitune.results import html_tables
from multitune.results.digests import Digests
from multitune.results.json_files import JsonFile, finite

FILE = "results.json"

Language = Annotated[str, "language"]
Metric = Annotated[str, "metric"]
Group = Annotated[str, "side or task"]
Label = Annotated[str, "label"]
Score = float | None
"""Percent (a loss in nats); None where it is not finite: the model has diverged."""
Scores = dict[Language, dict[Metric, Score]]
Side = Literal["seen", "unseen"]
SIDES: tuple[Side, Side] = ("seen", "unseen")

Value = TypeVar("Value", covariant=True)
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Sides(Generic[Value]):
    """A value for the languages seen in training and one for the unseen ones; ``sides["seen"]`` is ``sides.seen``."""

    seen: Value
    unseen: Value

    def __getitem__(self, side: Side) -> Value:
        return self.seen if side == "seen" else self.unseen


@dataclass(frozen=True)
class Shipped:
    """Which weights a run ships.

    Attributes:
        select: the recipe's: ``last`` or ``best``.
        gradients: gradient computations that they had seen.
        dev: their average on dev in percent; null where it is not finite.
        languages: with a model for each language (``stl``), which weights each ships; ``gradients`` is then their sum,
            and ``dev`` their mean.
    """

    select: str
    gradients: int
    dev: Score
    languages: "dict[Language, Shipped]" = field(default_factory=dict)


@dataclass(frozen=True)
class RunResult(JsonFile):
    """One finished run; scores in percent.

    Attributes:
        method: its name.
        seed: of all that the run drew at random.
        budget: gradient computations that it might spend.
        metric: the score that ``average`` is of.
        seen: the scores of the languages that were trained on; null where a score is not finite.
        unseen: those of the others.
        average: the mean of ``metric`` over languages, unweighted; null without such languages, or where a score is.
        drift: L2 distance of the shipped weights from the pretrained ones, heads excluded; null where the weights are
            not finite: the run has diverged.
        seconds: of training, validations included, over all sessions of the run.
        peak_memory_bytes: the most that the process, or the accelerator, had in use, over all sessions of the run.
        shipped: which weights ``model/`` holds.
        dropped: records left out because the recipe's ``labels`` ignores all their labels.
        versions: of Python and the packages that decide the numbers, and how scores were computed.
        skipped: bad records that the recipe's ``skip_bad`` left out.
        unknown_labels: labels of test records that training never shows, and how often; they count as wrong.
        steps: steps of the optimizer that were taken.
        skipped_steps: steps that were not, since a loss or gradient was not finite.
        trained: gradient computations that each task had a part in and that became steps.
        step_seconds: of ``seconds`` those of the steps themselves; null in files that do not say.
        precision: of the forward and backward pass; null in files that do not say.
        threads: of the CPU; null in files that do not say.
        device: where the model ran: ``cpu``, ``cuda:0``; null in files that do not say.
        by_class: ``seen`` and ``unseen`` (or a task with a head of its own) -> label -> its ``examples``, and its
            ``precision``, ``recall`` and ``f1``; of kinds of task that have one label a record.
        notes: what has to be said with the scores, a sentence each.
        stopped: gradient computations after which the recipe's ``patience`` ended it; null where the budget was spent.
        digests: of the data's records, by which changed ones are told; null in files that do not say.
    """

    NAME: ClassVar[str] = FILE
    SCHEMA: ClassVar[int] = 1

    method: str
    seed: int
    budget: int
    metric: str
    seen: Scores
    unseen: Scores
    average: Sides[Score]
    drift: float | None
    seconds: float
    peak_memory_bytes: int
    shipped: Shipped
    dropped: dict[Language, int]
    versions: dict[Annotated[str, "name"], str]
    skipped: dict[Language, int] = field(default_factory=dict)
    unknown_labels: dict[Language, dict[Label, int]] = field(default_factory=dict)
    steps: int = 0
    skipped_steps: int = 0
    trained: dict[Language, int] = field(default_factory=dict)
    step_seconds: float | None = None
    precision: str | None = None
    threads: int | None = None
    device: str | None = None
    by_class: dict[Group, dict[Label, dict[Metric, float]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    stopped: int | None = None
    digests: Digests | None = None

    @property
    def spent(self) -> int:
        """Gradient computations that it made."""
        return self.budget if self.stopped is None else self.stopped

    @property
    def untrained(self) -> list[str]:
        """The tasks that no step was taken for."""
        return [task for task, gradients in self.trained.items() if not gradients]

    @property
    def scores(self) -> Sides[Scores]:
        """``seen`` and ``unseen`` together."""
        return Sides(self.seen, self.unseen)

    def _repr_html_(self) -> str:
        """The table of scores, which notebooks show."""
        return html_tables.of_run(self)

    def to_records(self) -> list[dict[str, Any]]:
        """A flat dict for each language and metric, as ``pandas.DataFrame`` takes them.

        Its keys are ``method``, ``seed``, ``language``, ``side`` ("seen" or "unseen"), ``metric`` and ``score``.
        """
        return [
            {"method": self.method, "seed": self.seed, "language": language, "side": side} | measured
            for side in SIDES
            for language, scores in self.scores[side].items()
            for measured in ({"metric": metric, "score": score} for metric, score in scores.items())
        ]


def finite_scores(scores: Mapping[str, Mapping[str, float]]) -> Scores:
    """Scores as files have them: None for what is not finite."""
    return {language: {metric: finite(score) for metric, score in own.items()} for language, own in scores.items()}


def average(scores: Mapping[str, Mapping[str, Score]], metric: str) -> Score:
    """The unweighted mean of a metric over languages; None without languages, or where a score is None."""
    return mean(own[metric] for own in scores.values())


def total(values: Iterable[Number | None]) -> Number | None:
    """The sum; None of no value, or where one of them is None."""
    known: list[Number] = []
    for value in values:
        if value is None:
            return None
        known.append(value)
    return sum(known[1:], known[0]) if known else None


def milliseconds_a_gradient(results: Sequence[RunResult]) -> float | None:
    """What a gradient computation takes in the steps of some runs; None where a run does not say."""
    seconds = total(result.step_seconds for result in results)
    return None if seconds is None else 1000 * seconds / sum(result.spent for result in results)


def mean(values: Iterable[float | None]) -> float | None:
    """The mean; None of no value, or where one of them is None."""
    numbers = list(values)
    summed = total(numbers)
    return None if summed is None else summed / len(numbers)
