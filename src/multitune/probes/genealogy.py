"""How languages are related: a small table of families and branches, for distances and for the order of heat maps.

The table has textbook facts alone. URIEL, the usual source of typological distances, has no client that is kept up:
lang2vec's last release (2019) needs a module that setuptools no longer has.
"""

import re
from collections.abc import Iterable
from functools import cache
from importlib import resources

from multitune.data import languages

NAME = "genealogical: 1 - shared levels / mean depth of the two languages' family trees"


def code(language: str) -> str | None:
    """The table's own code of a language: "deu_Latn", "xquad:de" and "de-CH" are all "de"; None where it has none.

    Older codes are those of BCP 47: "iw" is "he".
    """
    tag = language.rpartition(":")[2]
    base = re.split("[-_]", tag)[0].lower()
    return _codes().get(base) or _codes().get(languages.language(tag).code)


def lineage(language: str) -> tuple[str, ...] | None:
    """Family, branches and the language itself, e.g. ("Indo-European", "Germanic", "West", "de")."""
    known = code(language)
    return None if known is None else (*_table()[known], known)


def family(language: str) -> str | None:
    """The language's family, e.g. "Uralic"; None for a language that the table has not."""
    known = lineage(language)
    return None if known is None else known[0]


def distance(one: str, other: str) -> float | None:
    """1 - 2 s / (a + b), s the shared levels of two lineages of a and b levels: 0 for one language, 1 for unrelated.

    None where the table lacks one of them.
    """
    first, second = lineage(one), lineage(other)
    if first is None or second is None:
        return None
    shared = 0
    for here, there in zip(first, second, strict=False):
        if here != there:
            break
        shared += 1
    return 1 - 2 * shared / (len(first) + len(second))


def by_family(languages: Iterable[str]) -> list[str]:
    """The languages with relatives side by side: families in alphabetical order, unknown languages last."""
    return sorted(languages, key=lambda language: (lineage(language) is None, lineage(language) or (), language))


@cache
def _table() -> dict[str, tuple[str, ...]]:
    """Code -> family and branches."""
    return {code: tuple(lineage.split("/")) for code, _, _, lineage in _rows()}


@cache
def _codes() -> dict[str, str]:
    """Every code of a language (ISO 639-1, 639-3 and a few of their members) -> the table's own."""
    return {each: code for code, longer, _, _ in _rows() for each in (code, *longer.split())}


@cache
def _rows() -> list[list[str]]:
    text = resources.files("multitune.probes").joinpath("languages.tsv").read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines()[1:]]
