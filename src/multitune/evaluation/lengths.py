"""How long a corpus's records are in a model's tokens, and how many of them ``max_length`` cuts."""

import logging
from typing import NamedTuple

import numpy as np

from multitune.data.corpus import Corpus
from multitune.data.records.limits import limited
from multitune.errors import UserError
from multitune.models import scratch
from multitune.models.tokenizers import load_tokenizer
from multitune.tasks import TASKS

log = logging.getLogger(__name__)

SAMPLE = 1000
"""The most records of a language and split that are measured: a fixed random choice."""


class Lengths(NamedTuple):
    """Tokens of a language's records, special ones included; ``over`` is the percentage beyond max_length."""

    mean: float
    percentile_95: float
    over: float


def measure(corpus: Corpus, model: str, max_length: int) -> dict[str, Lengths]:
    """The lengths of each language's records, all splits together.

    Nothing for images and for models that are made for their data; nothing, with a warning, where the model's tokenizer
    cannot be had.
    """
    if model.startswith(scratch.PREFIX):
        return {}
    try:
        split = {TASKS[corpus.head(language).task].split_into_words for language in corpus.test}
        tokenizers = {words: load_tokenizer(model, words=words) for words in split}
    except UserError as error:
        log.warning("tokens are not counted: %s", error)
        return {}
    sample = limited(corpus, train=SAMPLE, dev=SAMPLE, test=SAMPLE)
    lengths = {}
    for language in corpus.test:
        kind = TASKS[corpus.head(language).task]
        splits = (sample.train, sample.test) if corpus.test_is_dev else (sample.train, sample.dev, sample.test)
        records = [record for split in splits for record in split.get(language, ())]
        if kind.tokenised and records:
            counts = np.array([kind.tokens(record, tokenizers[kind.split_into_words]) for record in records])
            over = 100 * float((counts > max_length).mean())
            lengths[language] = Lengths(float(counts.mean()), float(np.percentile(counts, 95)), over)
    return lengths
