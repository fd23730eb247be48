"""What a run reports: results.json, its versions and its peak memory."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from multitune.storage.atomic import write_json

Scores = dict[str, dict[str, float]]
"""Language -> {metric: percent}."""

FILE = "results.json"


@dataclass(frozen=True)
class RunResult:
    """One finished run, as its results.json has it; scores in percent.

    Attributes:
        budget: gradient computations spent.
        metric: the score that ``average`` is of, unweighted over languages; None where there is no such language.
        drift: L2 distance of the shipped weights from the pretrained ones, heads excluded.
        seconds: of training, validations included, over all sessions of the run.
        shipped: which weights: ``select``, at how many ``gradients``, and their ``dev`` average.
        dropped: language -> dev and test records left out because training never shows their label.
        skipped: language -> bad records that the recipe's ``skip_bad`` left out.
        steps: steps of the optimizer that were taken.
        skipped_steps: steps that were not, since a loss or gradient was not finite.
        trained: task -> gradient computations that it had a part in and that became steps.
    """

    method: str
    seed: int
    budget: int
    metric: str
    seen: Scores
    unseen: Scores
    average: dict[str, float | None]
    drift: float
    seconds: float
    peak_memory_bytes: int
    shipped: dict[str, Any]
    dropped: dict[str, int]
    versions: dict[str, str]
    skipped: dict[str, int] = field(default_factory=dict)
    steps: int = 0
    skipped_steps: int = 0
    trained: dict[str, int] = field(default_factory=dict)

    @property
    def untrained(self) -> list[str]:
        """The tasks that no step was taken for."""
        return [task for task, gradients in self.trained.items() if not gradients]

    def write(self, folder: Path) -> None:
        """Write results.json, whole or not at all."""
        write_json(folder / FILE, asdict(self))

    @staticmethod
    def read(folder: Path) -> "RunResult":
        """Read a run folder's results.json."""
        return RunResult(**json.loads((folder / FILE).read_text(encoding="utf-8")))


def mean(scores: Mapping[str, Mapping[str, float]], metric: str) -> float | None:
    """The unweighted mean of a metric over languages; None without languages."""
    return sum(score[metric] for score in scores.values()) / len(scores) if scores else None
