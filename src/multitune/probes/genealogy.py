"""How languages are related: a small table of families, branches and scripts, for distances and tables' order.

The table has textbook facts alone; typological distances are in ``typology``.
"""

import re
from collections.abc import Iterable
from functools import cache
from importlib import resources

from multitune.data import languages

SCRIPTS = {
    "arab": "Arabic",
    "cyrl": "Cyrillic",
    "deva": "Devanagari",
    "hang": "Hangul",
    "hans": "Han",
    "hant": "Han",
    "jpan": "Japanese",
    "kore": "Hangul",
    "latn": "Latin",
}
"""Scripts that tags name for languages with several: ISO 15924 -> the table's word."""

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


def script(language: str) -> str | None:
    """What the language is written in: "Latin" of "de" and of "sr-Latn"; None for a language that the table has not.

    A script that the tag names and ``SCRIPTS`` lacks stays as it is written, "Mtei" of "mni_Mtei".
    """
    tag = language.rpartition(":")[2]
    named = next((part for part in re.split("[-_]", tag)[1:] if len(part) == 4 and part.isalpha()), None)
    if named is not None:
        return SCRIPTS.get(named.lower(), named)
    known = code(language)
    return None if known is None else _scripts()[known]


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
    return {code: tuple(lineage.split("/")) for code, _, _, lineage, _ in _rows()}


@cache
def _scripts() -> dict[str, str]:
    """Code -> script."""
    return {code: script for code, _, _, _, script in _rows()}


@cache
def _codes() -> dict[str, str]:
    """Every code of a language (ISO 639-1, 639-3 and a few of their members) -> the table's own."""
    return {each: code for code, longer, *_ in _rows() for each in (code, *longer.split())}


@cache
def _rows() -> list[list[str]]:
    text = resources.files("multitune.probes").joinpath("languages.tsv").read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines()[1:]]
