"""How a corpus's labels are spread over its training languages."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from multitune.data.corpus import Corpus, Head
from multitune.data.kind import Kind


class Balance(NamedTuple):
    """How often a label occurs in training, its share of all labels, and the languages where it is least and most."""

    label: str
    times: int
    share: float
    least: tuple[float, str]
    most: tuple[float, str]


def balance(corpus: Corpus, kinds: Mapping[str, type[Kind]]) -> list[Balance]:
    """Every label, the frequent ones first, shares in percent; tasks with heads of their own one by one."""
    if not corpus.heads:
        head = Head(corpus.task, corpus.labels)
        return _of_one_head(head, kinds[head.task], corpus, list(corpus.train), "")
    heads = corpus.heads.items()
    return [row for name, head in heads for row in _of_one_head(head, kinds[head.task], corpus, [name], f"{name}: ")]


def _of_one_head(head: Head, kind: type[Kind], corpus: Corpus, languages: Sequence[str], prefix: str) -> list[Balance]:
    counts = {
        language: Counter(label for record in corpus.train[language] for label in kind.labels_of(record))
        for language in languages
    }
    total, nowhere = sum(counts.values(), start=Counter()), [(0.0, "")]
    rows = []
    for label in sorted(head.labels, key=lambda label: -total[label]):
        shares = [(_percent(count[label], count.total()), code) for code, count in counts.items() if count] or nowhere
        share = _percent(total[label], total.total())
        rows.append(Balance(f"{prefix}{label}", total[label], share, min(shares), max(shares)))
    return rows


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0
