"""Corpora of data sets by name, and how many records they have."""

from pathlib import Path
from typing import Any

from multitune.data import sets
from multitune.data.bad import BadRecords
from multitune.data.corpus import Corpus
from multitune.tasks import TASKS


def load(name: str, path: Path | None = None, **options: Any) -> Corpus:
    """A corpus without a single bad record."""
    bad = BadRecords()
    corpus = sets.load(name, bad, TASKS, path=None if path is None else str(path), **options)
    bad.refuse()
    return corpus


def sizes(corpus: Corpus) -> dict[str, list[int]]:
    """Language -> records of train, dev and test; zero where it has none."""
    splits = (corpus.train, corpus.dev, corpus.test)
    return {code: [len(split.get(code, ())) for split in splits] for code in corpus.test}
