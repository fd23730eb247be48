"""What the pseudo-tasks of a run are: clusters.json."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from multitune.results.json_files import JsonFile
from multitune.results.run import Language

FILE = "clusters.json"


@dataclass(frozen=True)
class Cluster:
    """One pseudo-task.

    Attributes:
        task: its name, ``cluster-1`` for the largest.
        records: training records in it.
        percent: of all training records.
        languages: its training records by language.
        labels: the percentages of its most frequent labels, five at most.
        words: what tells it most from the others, twelve words at most.
        nearest: the inputs nearest to its centre, three at most, the nearest first.
    """

    task: str
    records: int
    percent: float
    languages: dict[Language, int]
    labels: dict[Annotated[str, "label"], float]
    words: list[str]
    nearest: list[str]


@dataclass(frozen=True)
class Clusters(JsonFile):
    """The clusters that a run's training records were divided into.

    Attributes:
        model: what encoded the records.
        variance: percentage of the variance that the principal components keep.
        hash: of the assignment: runs with the same one had the same tasks.
        clusters: each of them, the largest first.
    """

    NAME: ClassVar[str] = FILE
    SCHEMA: ClassVar[int] = 1

    model: str
    variance: float
    hash: str
    clusters: list[Cluster]
