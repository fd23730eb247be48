"""Universal Dependencies treebanks in CoNLL-U: any of their columns by name, a list a sentence."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from multitune.data.bad import BadRecords, report
from multitune.data.corpus import Place
from multitune.data.sentences import sentences

COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")


def rows(
    path: str | Path, columns: Mapping[str, str], bad: BadRecords | None = None
) -> Iterator[tuple[Place, dict[str, list[str]]]]:
    """Yield ``{field: [value of each word]}`` a sentence, each with its place: the line of every word.

    Comments, multiword tokens (1-2) and empty nodes (1.1) are no words.

    Args:
        path: a UTF-8 file, plain or gzipped.
        columns: field -> its column, one of ``COLUMNS`` in any case.
        bad: takes the bad sentences; None raises at the first.

    Raises:
        UserError: no such column; or naming file and line: not ten columns.
    """
    path = Path(path)
    for field, column in columns.items():
        if column.lower() not in COLUMNS:
            report(bad, str(path), f"no column {column!r} for {field}; CoNLL-U has {', '.join(COLUMNS)}")
            return
    places = {field: COLUMNS.index(column.lower()) for field, column in columns.items()}
    for place, lines in sentences(path, bad):
        words = [line.split("\t") for line in lines]
        wrong = next((number for number, word in enumerate(words) if len(word) != len(COLUMNS)), None)
        if wrong is None:
            yield place, {field: [word[at].strip() for word in words] for field, at in places.items()}
        else:
            report(bad, place.of(wrong), f"{len(words[wrong])} columns; CoNLL-U has {len(COLUMNS)}")
