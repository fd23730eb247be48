"""How a corpus's labels are spread over its training languages."""

from collections import Counter
from typing import NamedTuple

from multitune.data.records.corpus import Corpus, Head, labels_of


class Balance(NamedTuple):
    """How often a label occurs in training, its share of all labels, and the languages where it is least and most."""

    label: str
    times: int
    share: float
    least: tuple[float, str]
    most: tuple[float, str]


def balance(corpus: Corpus) -> list[Balance]:
    """Every label, the frequent ones first, shares in percent; tasks with heads of their own one by one."""
    if not corpus.heads:
        return _of_one_head(Head(corpus.task, corpus.labels), corpus, list(corpus.train), "")
    return [row for task, head in corpus.heads.items() for row in _of_one_head(head, corpus, [task], f"{task}: ")]


def _of_one_head(head: Head, corpus: Corpus, languages: list[str], prefix: str) -> list[Balance]:
    counts = {
        language: Counter(label for record in corpus.train[language] for label in labels_of(head.task, record))
        for language in languages
    }
    total = sum(counts.values(), start=Counter())
    rows = []
    for label in sorted(head.labels, key=lambda label: -total[label]):
        shares = [(_percent(count[label], count.total()), language) for language, count in counts.items()]
        share = _percent(total[label], total.total())
        rows.append(Balance(f"{prefix}{label}", total[label], share, min(shares), max(shares)))
    return rows


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0
