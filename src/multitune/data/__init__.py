"""Data sources by name: each hands over a ``Corpus`` of labelled records by split and language."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from multitune.batching import seeded
from multitune.data import assistant, panx
from multitune.data.corpus import Corpus, Head, Record
from multitune.errors import UserError


def _assistant(path: str | None, languages: Sequence[str] | None, unseen: Sequence[str] | None) -> Corpus:
    if path is not None:
        raise UserError(f"path: data: assistant comes with an installed package and reads no folder, not {path!r}")
    return assistant.load(languages, unseen)


DATASETS: dict[str, Callable[[str | None, Sequence[str] | None, Sequence[str] | None], Corpus]] = {
    "assistant": _assistant,
    "panx": panx.load,
}
"""Name -> ``load(path, languages, unseen)``; None asks for the source's own choice of languages."""


def limited(corpus: Corpus, *, train: int | None = None, dev: int | None = None, test: int | None = None) -> Corpus:
    """The corpus with at most so many records a language in a split: a fixed random choice, whatever the run's seed."""
    return replace(
        corpus,
        train=_at_most(corpus.train, train, "train"),
        dev=_at_most(corpus.dev, dev, "dev"),
        test=_at_most(corpus.test, test, "test"),
    )


def _at_most(split: Mapping[str, list[Record]], limit: int | None, name: str) -> dict[str, list[Record]]:
    return {language: _chosen(records, limit, f"{name} {language}") for language, records in split.items()}


def _chosen(records: list[Record], limit: int | None, name: str) -> list[Record]:
    if limit is None or len(records) <= limit:
        return records
    order = torch.randperm(len(records), generator=seeded(0, name))
    return [records[row] for row in order[:limit].sort().values.tolist()]


__all__ = ["DATASETS", "Corpus", "Head", "Record", "limited"]
