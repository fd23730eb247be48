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
        steps: optimizer steps made of them.
        metric: the score that ``average`` is of, unweighted over languages; None where there is no such language.
        drift: L2 distance of the shipped weights from the pretrained ones, heads excluded.
        seconds: of training, validations included, over all sessions of the run.
        step_seconds: of these, those of the steps themselves.
        precision: of the forward and backward pass.
        threads: of the CPU.
        shipped: which weights: ``select``, at how many ``gradients``, and their ``dev`` average.
        dropped: language -> dev and test records left out because training never shows their label.
        skipped: language -> bad records that the recipe's ``skip_bad`` left out.
        by_class: ``seen`` and ``unseen`` (or a task with a head of its own) -> label -> its ``examples``, and its
            ``precision``, ``recall`` and ``f1``; of kinds of task that have one label a record.
        notes: what has to be said with the scores, a sentence each.
    """

    method: str
    seed: int
    budget: int
    steps: int
    metric: str
    seen: Scores
    unseen: Scores
    average: dict[str, float | None]
    drift: float
    seconds: float
    step_seconds: float
    peak_memory_bytes: int
    precision: str
    threads: int
    shipped: dict[str, Any]
    dropped: dict[str, int]
    versions: dict[str, str]
    skipped: dict[str, int] = field(default_factory=dict)
    by_class: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

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
