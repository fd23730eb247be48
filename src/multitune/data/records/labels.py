"""The labels of a corpus: taken for others where a recipe says so, and those that a model does not know."""

import logging
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from multitune.data.bad import first_of
from multitune.data.corpus import Corpus, Head, Record
from multitune.data.kind import IGNORE, Kind
from multitune.data.label_spelling import likely, lookalikes, stripped, told_apart
from multitune.data.records.rows import View, chosen
from multitune.errors import UserError, as_line

log = logging.getLogger(__name__)

Kinds = Mapping[str, type[Kind]]
"""The kinds of task by name."""

FEW = 8
"""Labels or languages that a warning names."""


def relabelled(corpus: Corpus, kinds: Kinds, names: Mapping[str, str]) -> Corpus:
    """The corpus with some labels taken for others, or ignored; a warning counts them.

    Records of which all labels are ignored are left out, and counted in ``dropped``.

    Args:
        kinds: the kinds of task by name.
        names: label (of entities: their type) -> another one of the corpus, or ``ignore``.

    Raises:
        UserError: records without labels, a name that is no label, or no record of a language is left.
    """
    heads = _heads(corpus)
    _check(heads, kinds, names)
    renaming = _Renaming(corpus, kinds, names)
    train, dev, test = (renaming.split(split) for split in (corpus.train, corpus.dev, corpus.test))
    renaming.say()
    head = Head(corpus.task, _renamed(Head(corpus.task, corpus.labels), kinds, names))
    own = {language: Head(one.task, _renamed(one, kinds, names)) for language, one in corpus.heads.items()}
    dropped = +Counter(corpus.dropped) + renaming.dropped
    return replace(corpus, labels=head.labels, train=train, dev=dev, test=test, dropped=dict(dropped), heads=own)


def completed(corpus: Corpus, kinds: Kinds) -> Corpus:
    """The corpus with the labels that follow from those that it has: where an entity begins, it may go on."""
    labels = kinds[corpus.task].completed(corpus.labels)
    heads = {language: Head(task, kinds[task].completed(own)) for language, (task, own) in corpus.heads.items()}
    return replace(corpus, labels=labels, heads=heads)


def unknown_labels(corpus: Corpus, split: Mapping[str, Sequence[Record]], kinds: Kinds) -> dict[str, dict[str, int]]:
    """Language -> label -> how often a split has it although the corpus (or the model) lacks it, frequent first."""
    unknown = {}
    for language, records in split.items():
        task, labels = corpus.head(language)
        counts = Counter(_others(records, kinds[task], frozenset(labels))) if labels else Counter[str]()
        if counts:
            unknown[language] = dict(counts.most_common())
    return unknown


def warn_of_unknown(corpus: Corpus, split: Mapping[str, Sequence[Record]], kinds: Kinds, name: str, who: str) -> None:
    """Say in one line which labels of a split are unknown: its ``name``, and ``who`` lacks them."""
    unknown = unknown_labels(corpus, split, kinds)
    if unknown:
        languages = [f"{language}: {_listed(counts)}" for language, counts in islice(unknown.items(), FEW)]
        more = f"; and {len(unknown) - FEW} more languages" if len(unknown) > FEW else ""
        said = f"{name} labels that {who} lacks count as wrong (labels: can rename or ignore them): "
        named = ((corpus.head(language).labels, islice(own, FEW)) for language, own in islice(unknown.items(), FEW))
        hints = (likely(label, known) for known, own in named for label in own)
        log.warning("%s", as_line(said + "; ".join(languages) + more + next(filter(None, hints), "")))


def warn_of_lookalikes(corpus: Corpus) -> None:
    """Say which labels of a head a reader cannot tell apart: they are labels of their own."""
    for head in _heads(corpus):
        if not (groups := lookalikes(head.labels)):
            continue
        alike = "; ".join(", ".join(told_apart(group)) for group in groups[:FEW])
        more = f"; and {len(groups) - FEW} more" if len(groups) > FEW else ""
        helps = any(len(set(map(stripped, group))) < len(group) for group in groups)
        log.warning(
            "labels that differ by blanks, capitals, composed accents, invisible characters or .0 alone are labels of "
            "their own: %s; %slabels: takes one for another",
            alike + more,
            "strip_labels: true takes off blanks at their edges, " if helps else "",
        )


def warn_of_one_label(corpus: Corpus, kinds: Kinds) -> None:
    """Say where the training records of a head have one label alone, from which nothing can be learnt."""
    groups = {language: [language] for language in corpus.heads} or {"": list(corpus.train)}
    for name, languages in groups.items():
        shown: set[str] = set()
        for language in languages:
            kind = kinds[corpus.head(language).task]
            shown.update(islice(_distinct(corpus.train[language], kind), 2))
        if len(shown) == 1 and all(map(_is_labelled(corpus, kinds), languages)):
            what = as_line(f"{name + ': ' if name else ''}training has one label alone, {shown.pop()!r}")
            log.warning("%s: a model learns to say it always, which scores look good on", what)


def _is_labelled(corpus: Corpus, kinds: Kinds) -> Callable[[str], bool]:
    """Says whether all training records of a language have a label: where they have lists, some may have none."""
    return lambda language: all(map(kinds[corpus.head(language).task].labels_of, corpus.train[language]))


def warn_of_unanswered(corpus: Corpus, kinds: Kinds) -> None:
    """Say of which languages no record of a split has an answer, as where a published test set keeps them back."""
    dev = {} if corpus.test_is_dev else corpus.dev
    for name, split in (("training", corpus.train), ("dev", dev), ("test", corpus.test)):
        lacking = [
            language
            for language, records in split.items()
            if records and not any(map(kinds[corpus.head(language).task].is_answered, records))
        ]
        if lacking:
            log.warning(
                "%s",
                as_line(
                    f"no {name} record of {first_of(lacking, FEW)} has an answer; were they removed from the "
                    "files? Right is then to find none, and scores say nothing of finding one"
                ),
            )


class _Renaming:
    """Takes labels for others, split by split, and counts what it has done."""

    def __init__(self, corpus: Corpus, kinds: Kinds, names: Mapping[str, str]) -> None:
        self.dropped: Counter[str] = Counter()
        self._corpus, self._kinds, self._names = corpus, kinds, names
        self._times: Counter[str] = Counter()
        self._done: dict[int, Sequence[Record]] = {}

    def split(self, split: Mapping[str, Sequence[Record]]) -> dict[str, Sequence[Record]]:
        return {language: self._records(records, language) for language, records in split.items()}

    def _records(self, records: Sequence[Record], language: str) -> Sequence[Record]:
        if id(records) not in self._done:  # where dev is reported, it is the test split too
            self._done[id(records)] = self._of_kind(records, self._kinds[self._corpus.head(language).task], language)
        return self._done[id(records)]

    def _of_kind(self, records: Sequence[Record], kind: type[Kind], language: str) -> Sequence[Record]:
        rows = array("q")
        for row, record in enumerate(records):
            before, after = kind.labels_of(record), kind.relabelled(record, self._names)
            self._times.update(kind.name_of(label) for label in before if kind.name_of(label) in self._names)
            if kind.labels_of(after) or not before:
                rows.append(row)
        if records and not rows:
            raise UserError(f"labels: ignores all labels of a split of {language!r}, so that no record is left")
        self.dropped[language] += len(records) - len(rows)
        kept = chosen(records, rows)
        return View(len(rows), lambda number: kind.relabelled(kept[number], self._names))

    def say(self) -> None:
        """Tell in one line what was done, and how often."""
        said = ", ".join(f"{name!r} -> {new!r} ({self._times[name]})" for name, new in self._names.items())
        left_out = ", ".join(f"{language} {count}" for language, count in (+self.dropped).items())
        more = f"; records with no other label are left out: {left_out}" if left_out else ""
        log.warning("%s", as_line(f"labels: {said}{more}"))


def _heads(corpus: Corpus) -> Collection[Head]:
    return list(corpus.heads.values()) or [Head(corpus.task, corpus.labels)]


def _check(heads: Collection[Head], kinds: Kinds, names: Mapping[str, str]) -> None:
    for head in heads:
        if kinds[head.task].label_field is None:
            raise UserError(f"labels: records of {head.task} have no labels that could be taken for others")
    own = {label: kinds[head.task].name_of(label) for head in heads for label in head.labels}
    allowed = [name for name in dict.fromkeys(name or label for label, name in own.items()) if name not in names]
    for name, new in names.items():
        if name in own and name not in own.values():
            raise UserError(f"labels: {name!r} is not to be taken for others; entities are named by their type")
        if new != IGNORE and new not in allowed:
            raise UserError(f"labels: {name!r} cannot be {new!r}; allowed: {', '.join((IGNORE, *allowed))}")


def _renamed(head: Head, kinds: Kinds, names: Mapping[str, str]) -> tuple[str, ...]:
    """The labels of a head that are left, in their order."""
    return tuple(label for label in head.labels if kinds[head.task].name_of(label) not in names)


def _others(records: Iterable[Record], kind: type[Kind], labels: Collection[str]) -> Iterable[str]:
    return (label for record in records for label in kind.labels_of(record) if label not in labels)


def _distinct(records: Iterable[Record], kind: type[Kind]) -> Iterable[str]:
    """The labels of records, each once; none where the kind has none."""
    seen: set[str] = set()
    for record in records if kind.label_field is not None else ():
        new = [label for label in dict.fromkeys(kind.labels_of(record)) if label not in seen]
        yield from new
        seen.update(new)


def _listed(counts: Mapping[str, int]) -> str:
    return first_of([f"{label!r} ({count})" for label, count in counts.items()], FEW)
