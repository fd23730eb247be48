"""Test examples on which methods disagree (of a single run: those it gets wrong), and how often they do."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from multitune.reports.evidence import FinishedRun
from multitune.results.shown import Shown

MOST_EXAMPLES = 40
"""Examples in a report, or one a language where that is more."""


@dataclass(frozen=True)
class Answer:
    """What a method said; ``right`` is None where right and wrong are not all there is."""

    method: str
    said: str
    right: bool | None


@dataclass(frozen=True)
class Example:
    """A test example with every method's answer."""

    language: str
    text: str
    reference: str
    answers: tuple[Answer, ...]

    @property
    def pattern(self) -> tuple[bool | None, ...]:
        """Who is right."""
        return tuple(answer.right for answer in self.answers)


@dataclass(frozen=True)
class Agreement:
    """How many test examples two methods got right: both, only either one, neither."""

    method: str
    other: str
    both: int
    only_method: int
    only_other: int
    neither: int


def examples(runs: Sequence[FinishedRun]) -> tuple[list[Example], list[Agreement]]:
    """Examples from every language, as evenly as can be over who is right; agreements of the first run with the others.

    Args:
        runs: one a method.
    """
    by_language: dict[str, list[Example]] = {}
    patterns: Counter[tuple[bool | None, ...]] = Counter()
    for example in _aligned(runs):
        if len(example.answers) == len(runs):
            patterns[example.pattern] += 1
        if _telling(example):
            by_language.setdefault(example.language, []).append(example)
    return _choice(by_language), _agreements([run.method for run in runs], patterns)


def _aligned(runs: Sequence[FinishedRun]) -> Iterator[Example]:
    """The test examples with each run's answer; runs that were tested on another record there are left out."""
    rows: dict[tuple[str, int], tuple[Mapping[str, Any], dict[str, Shown]]] = {}
    for run in runs:
        met: Counter[str] = Counter()
        for line in run.predictions():
            language = line.language
            record, answers = rows.setdefault((language, met[language]), (line.record, {}))
            if record == line.record and line.shown is not None:
                answers[run.method] = line.shown
            met[language] += 1
    for (language, _), (_, answers) in rows.items():
        if not answers:
            continue
        first = next(iter(answers.values()))
        said = tuple(Answer(method, shown.prediction, shown.right) for method, shown in answers.items())
        yield Example(language, first.text, first.reference, said)


def _telling(example: Example) -> bool:
    if len(example.answers) == 1:
        return example.answers[0].right is False
    return len({answer.right for answer in example.answers} if _is_judged(example) else _sayings(example)) > 1


def _is_judged(example: Example) -> bool:
    return all(answer.right is not None for answer in example.answers)


def _sayings(example: Example) -> set[str]:
    return {answer.said for answer in example.answers}


def _choice(by_language: Mapping[str, list[Example]]) -> list[Example]:
    """As many of each language, taking whoever-is-right patterns that were seldom taken first."""
    each = max(1, MOST_EXAMPLES // max(1, len(by_language)))
    taken: Counter[tuple[bool | None, ...]] = Counter()
    chosen = []
    for examples in by_language.values():
        left = list(examples)
        for _ in range(min(each, len(left))):
            least = min(range(len(left)), key=lambda n: taken[left[n].pattern])
            taken[left[least].pattern] += 1
            chosen.append(left.pop(least))
    return chosen


def _agreements(methods: Sequence[str], patterns: Mapping[tuple[bool | None, ...], int]) -> list[Agreement]:
    if any(right is None for pattern in patterns for right in pattern):
        return []
    agreements = []
    for place, other in enumerate(methods[1:], 1):
        pairs: Counter[tuple[bool | None, bool | None]] = Counter()
        for pattern, count in patterns.items():
            pairs[pattern[0], pattern[place]] += count
        counts = (pairs[True, True], pairs[True, False], pairs[False, True], pairs[False, False])
        agreements.append(Agreement(methods[0], other, *counts))
    return agreements
