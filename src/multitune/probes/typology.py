"""How alike two languages are in grammar and sounds, by URIEL's typological features (the extra ``typology``).

Khan et al., "URIEL+" (COLING 2025), whose package carries the data (CC BY-SA 4.0); nothing of it is copied here. This
is the only file that knows the package. It reads the package's file of features and does not import its code, which
would take over the root logger and write into its own folder. The package's further databases are left out: to merge
them takes two minutes.
"""

import math
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from multitune.data.languages import standards

PACKAGE = "urielplus"
FEATURES = "database/original_uriel/features.npz"
FEWEST = 25
"""Features that two languages must both have for their distance to say anything."""
UNKNOWN = -1.0


class Likeness(NamedTuple):
    """How far two languages are apart, 0 to 1, None with too few features; and the features that both have."""

    distance: float | None
    shared: int


def source() -> str | None:
    """Where the distances come from, with its version and licence; None where the package is not installed."""
    try:
        return f"URIEL+ {version(PACKAGE)}, CC BY-SA 4.0"
    except PackageNotFoundError:
        return None


def likeness(one: str, other: str) -> Likeness | None:
    """The typological distance of two languages: the angle between their features, as a share of a right angle.

    d = 2 arccos(<u, v> / (|u| |v|)) / pi over the features that are known of both. None where the package is not
    installed, or does not have one of the languages.
    """
    first, second = _features(one), _features(other)
    if first is None or second is None:
        return None
    both = (first != UNKNOWN) & (second != UNKNOWN)
    shared = int(both.sum())
    return Likeness(_angle(first[both], second[both]) if shared >= FEWEST else None, shared)


def _angle(u: NDArray[np.float64], v: NDArray[np.float64]) -> float | None:
    """None of a language that has none of the features."""
    norms = float(np.linalg.norm(u) * np.linalg.norm(v))
    if norms == 0.0:
        return None
    return 2 * math.acos(min(1.0, float(u @ v) / norms)) / math.pi


@cache
def _features(language: str) -> NDArray[np.float64] | None:
    """The language's row; of several codes that it has, the one of which most is known."""
    rows = [_rows()[code] for code in standards(language.rpartition(":")[2]) if code in _rows()]
    return max(rows, key=lambda row: int((row != UNKNOWN).sum()), default=None)


@cache
def _rows() -> dict[str, NDArray[np.float64]]:
    """Code of three letters -> its features, [features]: 1 where any source has it so, else 0; -1 where none knows."""
    if source() is None:
        return {}
    with files(PACKAGE).joinpath(FEATURES).open("rb") as file, np.load(file, allow_pickle=False) as table:
        features = np.maximum.reduce(np.moveaxis(table["data"], 2, 0)).astype(np.float64)
        return dict(zip(map(str, table["langs"]), features, strict=True))
