"""Test examples on which methods disagree (of a single run: those it gets wrong), and how often they do."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seqeval.metrics.sequence_labeling import get_entities

from multitune.report.evidence import FinishedRun

MOST_EXAMPLES, LONGEST_TEXT = 40, 400
"""Examples in a report, or one a language where that is more; characters after which a text is cut."""


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
    for language, record, predictions in _aligned(runs):
        found = Example(language, _text(record), _reference(record), _answers(record, predictions))
        if len(found.answers) == len(runs):
            patterns[found.pattern] += 1
        if _telling(found):
            by_language.setdefault(language, []).append(found)
    return _choice(by_language), _agreements([run.method for run in runs], patterns)


def _aligned(runs: Sequence[FinishedRun]) -> Iterator[tuple[str, Mapping[str, Any], dict[str, Any]]]:
    """Language, record and method -> prediction; runs that were tested on another record there are left out."""
    rows: dict[tuple[str, int], tuple[Mapping[str, Any], dict[str, Any]]] = {}
    for run in runs:
        met: Counter[str] = Counter()
        for line in run.predictions():
            language = line.language
            record, predictions = rows.setdefault((language, met[language]), (line.record, {}))
            if record == line.record:
                predictions[run.method] = line.prediction
            met[language] += 1
    for (language, _), (record, predictions) in rows.items():
        yield language, record, predictions


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
    for found in by_language.values():
        left = list(found)
        for _ in range(min(each, len(left))):
            least = min(range(len(left)), key=lambda n: taken[left[n].pattern])
            taken[left[least].pattern] += 1
            chosen.append(left.pop(least))
    return chosen


def _agreements(methods: Sequence[str], patterns: Mapping[tuple[bool | None, ...], int]) -> list[Agreement]:
    if any(right is None for pattern in patterns for right in pattern):
        return []
    found = []
    for place, other in enumerate(methods[1:], 1):
        pairs: Counter[tuple[bool | None, bool | None]] = Counter()
        for pattern, count in patterns.items():
            pairs[pattern[0], pattern[place]] += count
        counts = (pairs[True, True], pairs[True, False], pairs[False, True], pairs[False, False])
        found.append(Agreement(methods[0], other, *counts))
    return found


def _answers(record: Mapping[str, Any], predictions: Mapping[str, Any]) -> tuple[Answer, ...]:
    return tuple(Answer(method, _said(record, said), _right(record, said)) for method, said in predictions.items())


def _right(record: Mapping[str, Any], prediction: Any) -> bool | None:
    if "label" in record and isinstance(record["label"], str):
        return bool(record["label"] == prediction)
    if "tags" in record:
        return bool(record["tags"] == prediction)
    if "answers" in record:
        return prediction in record["answers"]["text"]
    return None


def _text(record: Mapping[str, Any]) -> str:
    if "tokens" in record:
        return _cut(" ".join(record["tokens"]))
    found = [record[key] for key in ("question", "text", "text_pair", "source", "context") if record.get(key)]
    return _cut(" | ".join(found))


def _reference(record: Mapping[str, Any]) -> str:
    if "tags" in record:
        return _said(record, record["tags"])
    if "answers" in record:
        return _cut(" | ".join(dict.fromkeys(record["answers"]["text"])))
    return _cut(str(record.get("label", record.get("target", ""))))


def _said(record: Mapping[str, Any], prediction: Any) -> str:
    if "tags" in record:
        return _cut(", ".join(f"{tag}: {words}" for tag, words in _phrases(record["tokens"], prediction)) or "nothing")
    return _cut(prediction if isinstance(prediction, str) else json.dumps(prediction, ensure_ascii=False))


def _phrases(tokens: Sequence[str], tags: Sequence[str]) -> list[tuple[str, str]]:
    """Entities and their words; every token where tags are of single tokens, such as parts of speech."""
    if all(tag == "O" or tag[:2] in ("B-", "I-") for tag in tags):
        return [(kind, " ".join(tokens[first : last + 1])) for kind, first, last in get_entities(list(tags))]
    return list(zip(tags, tokens, strict=True))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"
