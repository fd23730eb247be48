"""Language proximity: do related languages have similar gradients?

Gradient Vaccine (arXiv 2010.05874) finds that gradient similarity correlates with language proximity. Here: Spearman's
rank correlation of the pairwise cosines with genealogical distances. The pairs of a matrix are not independent, so its
p-value comes from a Mantel test (Mantel 1967): the languages of one matrix are permuted, rows and columns together.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from multitune.probes import genealogy, typology
from multitune.results.probes import LanguagePair, Proximity

Matrix = NDArray[np.float64]

PERMUTATIONS = 9999
FEWEST = 4
"""Languages below which there are too few permutations to tell anything."""


class Correlation(NamedTuple):
    """Spearman's correlation, and its two-sided p-value under permutation of the languages."""

    spearman: float
    p: float


def mantel(distances: Matrix, cosines: Matrix, permutations: int = PERMUTATIONS) -> Correlation | None:
    """Spearman's correlation over pairs i < j of two symmetric [n, n] matrices, with a permutation test.

    p counts the observed order as one of the permutations, so that it is never 0. None where all pairs of a matrix are
    alike: ranks then tell nothing.
    """
    upper = np.triu_indices(len(distances), k=1)
    ranks = _centred_ranks(distances[upper])
    others = np.zeros_like(cosines)
    others[upper] = _centred_ranks(cosines[upper])
    others += others.T
    scale = np.linalg.norm(ranks) * np.linalg.norm(others[upper])
    if scale == 0:
        return None
    observed = float(ranks @ others[upper] / scale)
    generator = np.random.default_rng(0)
    orders = [generator.permutation(len(distances)) for _ in range(permutations)]
    drawn = np.array([ranks @ others[np.ix_(order, order)][upper] for order in orders]) / scale
    extreme = int((np.abs(drawn) >= abs(observed) - 1e-12).sum())
    return Correlation(observed, (1 + extreme) / (1 + permutations))


def proximity(languages: Sequence[str], cosines: Matrix) -> Proximity | None:
    """How the cosines of languages' gradients, [languages, languages], go with their genealogical distance.

    Languages that the table of families has not are left out; None where fewer than four are left, or where all
    distances are alike.
    """
    known = [row for row, language in enumerate(languages) if genealogy.lineage(language) is not None]
    if len(known) < FEWEST:
        return None
    names = [languages[row] for row in known]
    distances = np.array([[genealogy.distance(one, other) for other in names] for one in names], dtype=np.float64)
    correlation = mantel(distances, cosines[np.ix_(known, known)])
    if correlation is None:
        return None
    pairs = [
        LanguagePair([names[i], names[j]], float(distances[i, j]), float(cosines[known[i], known[j]]))
        for i, j in combinations(range(len(names)), 2)
    ]
    return Proximity(correlation.spearman, correlation.p, PERMUTATIONS, genealogy.NAME, pairs)


def typological(pairs: Sequence[LanguagePair]) -> Proximity | None:
    """The same cosines with typological distance, of the pairs that have one.

    Correlated are the languages that are left when those with the most unknown distances go, one by one, until all are
    known. None where fewer than four are left, or without the data.
    """
    source = typology.source()
    if source is None:
        return None
    cosines = {frozenset(pair.languages): pair.cosine for pair in pairs}
    likeness = {pair: typology.likeness(*sorted(pair)) for pair in cosines}
    distances = {pair: like.distance for pair, like in likeness.items() if like and like.distance is not None}
    names = _all_known({name for pair in cosines for name in pair}, distances)
    if len(names) < FEWEST:
        return None
    correlation = mantel(_matrix(names, distances), _matrix(names, cosines))
    if correlation is None:
        return None
    measured = [LanguagePair(sorted(pair), distance, cosines[pair]) for pair, distance in distances.items()]
    return Proximity(correlation.spearman, correlation.p, PERMUTATIONS, f"typological: {source}", measured)


def _all_known(names: Iterable[str], distances: Mapping[frozenset[str], float]) -> list[str]:
    """Leave out the language of which most is unknown, until nothing is."""
    left = sorted(names)
    while True:
        unknown = {one: sum(frozenset((one, other)) not in distances for other in left if other != one) for one in left}
        worst = max(left, key=lambda name: unknown[name], default=None)
        if worst is None or unknown[worst] == 0:
            return left
        left.remove(worst)


def _matrix(names: Sequence[str], values: Mapping[frozenset[str], float]) -> Matrix:
    """Symmetric, [names, names], zeros on its diagonal, which nothing reads."""
    return np.array([[0.0 if a == b else values[frozenset((a, b))] for b in names] for a in names])


def _centred_ranks(values: Matrix) -> Matrix:
    from scipy.stats import rankdata  # takes a second to import, which every report would wait for

    ranks: Matrix = rankdata(values) - (len(values) + 1) / 2
    return ranks
