"""How long a corpus's records are in a model's tokens, and how many of them ``max_length`` cuts."""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from multitune.data.records.corpus import Corpus, Record
from multitune.data.records.limits import limited
from multitune.errors import UserError
from multitune.models.encoder import load_tokenizer

log = logging.getLogger(__name__)

SAMPLE = 1000
"""The most records of a language and split that are measured: a fixed random choice."""

INPUTS: dict[str, Callable[[Record], tuple[Any, ...]]] = {
    "classification": lambda record: (record["text"], record.get("text_pair")),
    "regression": lambda record: (record["text"], record.get("text_pair")),
    "tagging": lambda record: (record["tokens"],),
    "pos_tagging": lambda record: (record["tokens"],),
    "question_answering": lambda record: (record["question"], record["context"]),
    "masked_language_modelling": lambda record: (record["text"],),
    "translation": lambda record: (record["source"],),
}
"""Kind of task -> what the tokenizer is given of a record; images have no tokens."""


class Lengths(NamedTuple):
    """Tokens of a language's records, special ones included; ``over`` is the percentage beyond max_length."""

    mean: float
    percentile_95: float
    over: float


def measure(corpus: Corpus, model: str, max_length: int) -> dict[str, Lengths]:
    """The lengths of each language's records, all splits together.

    Nothing for images; nothing, with a warning, where the model's tokenizer cannot be had.
    """
    try:
        tokenizer = load_tokenizer(model)
    except UserError as error:
        log.warning("tokens are not counted: %s", error)
        return {}
    sample = limited(corpus, train=SAMPLE, dev=SAMPLE, test=SAMPLE)
    found = {}
    for language in corpus.test:
        task = corpus.heads[language].task if corpus.heads else corpus.task
        splits = (sample.train, sample.test) if corpus.test_is_dev else (sample.train, sample.dev, sample.test)
        records = [record for split in splits for record in split.get(language, ())]
        if task in INPUTS and records:
            counts = np.array([_tokens(task, record, tokenizer) for record in records])
            over = 100 * float((counts > max_length).mean())
            found[language] = Lengths(float(counts.mean()), float(np.percentile(counts, 95)), over)
    return found


def _tokens(task: str, record: Record, tokenizer: PreTrainedTokenizerBase) -> int:
    words = task in ("tagging", "pos_tagging")
    return len(tokenizer(*INPUTS[task](record), is_split_into_words=words, verbose=False)["input_ids"])
