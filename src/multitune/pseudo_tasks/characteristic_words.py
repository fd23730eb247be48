"""The words that tell groups of texts apart."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from multitune.tasks.answers import words


def characteristic_words(groups: Sequence[Sequence[str]], most: int) -> list[list[str]]:
    """The words that each group of texts has more often than the others: at most ``most``, the most telling first.

    Words are ordered by the z-score of their log-odds ratio under a Dirichlet prior, for which their counts in all
    groups are taken (Monroe, Colaresi and Quinn 2008, "Fightin' Words"). They are in lower case, without punctuation.
    """
    counts = [Counter(chain.from_iterable(map(words, texts))) for texts in groups]
    vocabulary = sorted(set[str]().union(*counts))
    if len(vocabulary) < 2:
        return [[] for _ in groups]
    table = np.array([[count[word] for word in vocabulary] for count in counts], dtype=np.float64)
    characteristic = []
    for scores in _z_scores(table):
        best = np.argsort(-scores, kind="stable")[:most].tolist()
        characteristic.append([vocabulary[word] for word in best if scores[word] > 0])
    return characteristic


def _z_scores(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many standard deviations a group's log-odds of a word are above those of the others, [groups, words].

    Args:
        counts: [groups, words].
    """
    prior: NDArray[np.float64] = counts.sum(0)
    inside, outside = counts + prior, prior - counts + prior
    deviation: NDArray[np.float64] = np.sqrt(1 / inside + 1 / outside)
    return (_log_odds(inside) - _log_odds(outside)) / deviation


def _log_odds(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """log of n / (N - n), with the N of each row; counts: [groups, words]."""
    odds: NDArray[np.float64] = counts / (counts.sum(-1, keepdims=True) - counts)
    return np.log(odds)
