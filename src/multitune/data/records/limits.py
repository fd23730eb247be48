"""A corpus cut to a size."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from multitune.data.corpus import Corpus, Record
from multitune.data.records.rows import chosen
from multitune.seeds import seeded


def limited(corpus: Corpus, *, train: int | None = None, dev: int | None = None, test: int | None = None) -> Corpus:
    """The corpus with at most so many records a language in a split: a fixed random choice, whatever the run's seed."""
    return replace(
        corpus,
        train=_at_most(corpus.train, train, "train"),
        dev=_at_most(corpus.dev, dev, "dev"),
        test=_at_most(corpus.test, test, "test"),
    )


def _at_most(split: Mapping[str, Sequence[Record]], limit: int | None, name: str) -> dict[str, Sequence[Record]]:
    return {language: _chosen(records, limit, f"{name} {language}") for language, records in split.items()}


def _chosen(records: Sequence[Record], limit: int | None, name: str) -> Sequence[Record]:
    if limit is None or len(records) <= limit:
        return records
    order = torch.randperm(len(records), generator=seeded(0, name))
    return chosen(records, order[:limit].sort().values.tolist())
