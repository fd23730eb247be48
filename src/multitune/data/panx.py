"""WikiANN (PAN-X): named entities in a folder with ``train-xx.tsv`` and ``dev-xx.tsv`` a language.

The papers report scores on dev, and so does this source: ``test`` is the whole of dev, of training languages and of
unseen ones; ``dev`` is the same sentences, from which validation takes its few.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from multitune.data import conll
from multitune.data.corpus import Corpus, Record
from multitune.errors import UserError

log = logging.getLogger(__name__)


def load(path: str | None, languages: Sequence[str] | None, unseen: Sequence[str] | None) -> Corpus:
    """Read the folder ``path``; by default train on every language with a train file, the others are unseen.

    Raises:
        UserError: no folder, a language without its file, an empty file, a bad line, a tag that training never shows.
    """
    folder = _folder(path)
    with_train, with_dev = _codes(folder, "train"), _codes(folder, "dev")
    languages = tuple(with_train if languages is None else languages)
    unseen = tuple(code for code in with_dev if code not in with_train) if unseen is None else tuple(unseen)
    if not languages:
        raise UserError(f"{folder}: no train-xx.tsv file; PAN-X needs a train and a dev file a language")
    _require(languages, with_train, folder, "train")
    _require((*languages, *unseen), with_dev, folder, "dev")
    train = {code: _sentences(folder / f"train-{code}.tsv", None, strict=True) for code in languages}
    labels = tuple(sorted({tag for records in train.values() for record in records for tag in record["tags"]}))
    test = {
        code: _sentences(folder / f"dev-{code}.tsv", labels, strict=code in train)
        for code in dict.fromkeys((*languages, *unseen))
    }
    dev = {code: test[code] for code in languages}
    return Corpus(task="tagging", labels=labels, train=train, dev=dev, test=test, test_is_dev=True)


def _folder(path: str | None) -> Path:
    if path is None:
        raise UserError("path: is missing; data: panx needs the folder that holds train-xx.tsv and dev-xx.tsv")
    if not Path(path).is_dir():
        raise UserError(f"path: {path} is not a folder; data: panx needs one with train-xx.tsv and dev-xx.tsv")
    return Path(path)


def _codes(folder: Path, split: str) -> list[str]:
    return sorted(file.stem.removeprefix(f"{split}-") for file in folder.glob(f"{split}-*.tsv"))


def _require(codes: Sequence[str], present: Sequence[str], folder: Path, split: str) -> None:
    for code in codes:
        if code not in present:
            raise UserError(
                f"languages: no {split} data for {code!r} ({folder / f'{split}-{code}.tsv'}); "
                f"there is some for: {', '.join(present)}"
            )


def _sentences(file: Path, labels: Sequence[str] | None, *, strict: bool) -> list[Record]:
    """All sentences of a file; ``labels`` are the tags allowed, where training has settled them."""
    records, loose = [], 0
    for line, record in conll.numbered(file, strict=strict):
        if labels is not None:
            _check_labels(record, labels, f"{file}:{line}")
        loose += 0 if strict else _openings_without_b(record["tags"])
        records.append(record)
    if not records:
        raise UserError(f"{file}: holds no sentence")
    if loose:
        log.warning("%s: %d I- tags open an entity, which IOB2 does not allow; they are scored as B- tags", file, loose)
    return records


def _check_labels(record: Record, labels: Sequence[str], place: str) -> None:
    for offset, tag in enumerate(record["tags"]):
        if tag not in labels:
            file, _, line = place.rpartition(":")
            raise UserError(
                f"{file}:{int(line) + offset}: tag {tag!r} is never seen in training, which has {', '.join(labels)}"
            )


def _openings_without_b(tags: Sequence[str]) -> int:
    pairs = zip(["O", *tags], tags, strict=False)
    return sum(tag.startswith("I-") and previous[2:] != tag[2:] for previous, tag in pairs)
