"""The scores of each label, for kinds of task that have one label a record."""

from collections.abc import Mapping
from dataclasses import dataclass

from multitune.reports.evidence import Evidence


@dataclass(frozen=True)
class ClassLine:
    """A label on seen or on unseen languages (or of a task with a head of its own).

    Attributes:
        examples: test records that have it.
        scores: method -> its F1 in percent, the mean over seeds; None where a run neither met nor predicted the label.
    """

    label: str
    group: str
    examples: int
    scores: Mapping[str, float | None]


def class_lines(evidence: Evidence) -> list[ClassLine]:
    """Every label with every method's F1, the frequent ones first; empty for kinds of task without labels."""
    groups = dict.fromkeys(group for run in evidence.shown for group in run.result.by_class)
    lines = []
    for group in groups:
        scores = [run.result.by_class.get(group, {}) for run in evidence.shown]
        examples = {label: int(scored["examples"]) for run in scores for label, scored in run.items()}
        for label in sorted(examples, key=lambda label: (-examples[label], label)):
            by_method = {method: _f1(evidence, method, group, label) for method in evidence.methods}
            lines.append(ClassLine(label, group, examples[label], by_method))
    return lines


def _f1(evidence: Evidence, method: str, group: str, label: str) -> float | None:
    rows = [run.result.by_class.get(group, {}).get(label) for run in evidence.of(method)]
    scores = [one["f1"] for one in rows if one is not None]
    return sum(scores) / len(scores) if scores else None
