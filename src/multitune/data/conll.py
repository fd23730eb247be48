"""Token-tag files: one ``token TAB tag`` a line, a blank line between sentences; and CoNLL-U, by its file's ending.

WikiANN (PAN-X) and XTREME's part-of-speech files have two columns. A ``.conllu`` file has the ten columns of CoNLL-U
(then FORM and UPOS are read), or three: number, token, tag, as one export of WikiANN has.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from multitune.data import lines
from multitune.data.bad import BadRecord, BadRecords, parsed, records, report
from multitune.data.records.corpus import Place, Placed, Record

log = logging.getLogger(__name__)

Line = tuple[int, str]
Pick = Callable[[Sequence[str], int], tuple[str, str]]
Check = Callable[[Sequence[str]], None]

SCHEMES = {"IOB2": "BI", "IOBES": "BIES", "BILOU": "BILU", "plain tags": "."}
"""The prefixes of each scheme; ``.`` stands for a tag without one."""

NO_TOKEN = re.compile(r"#|\d+[-.]\d+\t")
"""In CoNLL-U a comment, a multiword token (1-2) or an empty node (1.1)."""


def read(path: str | Path, bad: BadRecords | None = None, *, strict: bool = False) -> Iterator[Record]:
    """Yield ``{"tokens": [...], "tags": [...]}`` a sentence, in the file's order.

    Quotes are text. A token may look empty (U+200E does); it may not be empty. A sentence with a bad line is bad.

    Args:
        path: a UTF-8 file, plain or gzipped, with or without a byte-order mark.
        bad: takes the bad sentences; None raises at the first.
        strict: refuse tag sequences that are not IOB2 (O, B-TYPE, or I-TYPE after a tag of the same TYPE). Published
            sets hold some; without ``strict`` they come as they stand, and scorers read such an I-TYPE as a B-TYPE.

    Raises:
        UserError: naming file and line: the wrong columns, an empty token or tag, not UTF-8, tags of several schemes
            in one file (IOB2 and IOBES, entities and parts of speech), or (strict) not IOB2.
    """
    return records(placed(path, bad, strict=strict))


def placed(path: str | Path, bad: BadRecords | None = None, *, strict: bool = False) -> Iterator[Placed]:
    """As ``read``, each with its place: the line of every token."""
    path = Path(path)
    pick = _of_conllu if ".conllu" in path.suffixes else _of_two
    check = check_iob2 if strict else OneScheme().check
    return parsed(_sentences(path, bad), lambda rows: _parse(rows, pick, check), bad)


def lenient(found: Iterable[Placed]) -> Iterator[Placed]:
    """The same, with a warning that counts the I- tags that open an entity, which IOB2 does not allow."""
    loose: Counter[str] = Counter()
    for place, record in found:
        pairs = zip(["O", *record["tags"]], record["tags"], strict=False)
        loose[place.file] += sum(tag.startswith("I-") and previous[2:] != tag[2:] for previous, tag in pairs)
        yield place, record
    for file, count in (+loose).items():
        log.warning("%s: %d I- tags open an entity, which IOB2 does not allow; they are scored as B- tags", file, count)


def check_iob2(tags: Sequence[str]) -> None:
    """Raise ``BadRecord`` where a sentence's tags are not IOB2."""
    for label, (previous, tag) in enumerate(zip(["O", *tags], tags, strict=False)):
        kind, _, entity = tag.partition("-")
        if tag != "O" and (kind not in ("B", "I") or not entity):
            raise BadRecord(f"tag {tag!r} is not IOB2: O, B-TYPE or I-TYPE is allowed", label)
        if kind == "I" and previous not in (f"B-{entity}", tag):
            raise BadRecord(f"{tag!r} after {previous!r} is not IOB2: an entity begins with B-{entity}", label)


class OneScheme:
    """The tag schemes that the sentences of a file have left possible."""

    def __init__(self) -> None:
        self._possible = dict(SCHEMES)
        self._fitting: set[str] = set()

    def check(self, tags: Sequence[str]) -> None:
        """Raise ``BadRecord`` for a sentence whose tags fit none of the schemes that all earlier ones fit."""
        if self._fitting.issuperset(tags):
            return
        possible = self._possible
        for label, tag in enumerate(tags):
            prefix = tag[0] if tag[1:2] == "-" and tag[0] in "BIESLU" else "."
            fitting = {name: known for name, known in possible.items() if tag == "O" or prefix in known}
            if not fitting:
                raise BadRecord(f"tag {tag!r} mixes schemes: the tags before it are {' or '.join(possible)}", label)
            possible = fitting
        self._possible = possible
        self._fitting.update(tags)


def _sentences(path: Path, bad: BadRecords | None) -> Iterator[tuple[Place, list[Line]]]:
    """The lines of each sentence; one with a line that is not UTF-8 is left out, as that line is reported already."""
    conllu = ".conllu" in path.suffixes
    rows: list[Line] = []
    size, known = 0, len(bad or ())
    for number, line in chain(lines.numbered(path, bad), [(0, "")]):
        if conllu and NO_TOKEN.match(line):
            continue
        if line.strip(" \t"):
            size += len(line) + 1
            rows += [(number, line)] if size <= lines.LONGEST else []
            continue
        if size > lines.LONGEST:
            problem = f"a sentence of more than {lines.LONGEST} characters; a blank line ends each"
            report(bad, f"{path}:{rows[0][0]}", problem)
        elif rows and len(bad or ()) == known:
            yield Place(str(path), [number for number, _ in rows]), rows
        rows, size, known = [], 0, len(bad or ())


def _parse(rows: Sequence[Line], pick: Pick, check: Check) -> Record:
    pairs = [pick(line.split("\t"), label) for label, (_, line) in enumerate(rows)]
    tags = [tag for _, tag in pairs]
    check(tags)
    return {"tokens": [token for token, _ in pairs], "tags": tags}


def _of_two(columns: Sequence[str], label: int) -> tuple[str, str]:
    """The token and tag of a line; ``label`` counts the lines of the sentence."""
    if len(columns) != 2:
        problem = f"{len(columns)} columns; a line is token TAB tag, or blank between sentences"
        raise BadRecord(problem, label)
    token, tag = columns[0], columns[1].strip()
    if not token or not tag:
        raise BadRecord(f"the {'tag' if token else 'token'} is empty; a line is token TAB tag", label)
    return token, tag


def _of_conllu(columns: Sequence[str], label: int) -> tuple[str, str]:
    if len(columns) not in (3, 10):
        raise BadRecord(f"{len(columns)} columns; CoNLL-U has 10, or number, token and tag", label)
    return _of_two([columns[1], columns[3 if len(columns) == 10 else 2]], label)
