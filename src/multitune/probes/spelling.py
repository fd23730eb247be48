"""One language under several names: a run's, that of a file of texts, CLDR's; scripts are kept apart."""

from collections.abc import Iterable

from multitune.data import languages
from multitune.probes import genealogy

ENGLISH = "eng"


def is_english(language: str) -> bool:
    """Whether the name of a run's language, perhaps with its data set's before it, says English."""
    return languages.language(_tag(language)).code == ENGLISH


def of_language(names: Iterable[str], language: str) -> str | None:
    """The file's name that means a language: as the run spells it, else the first of the same language; None without.

    Texts in another script are not its own: ``zho_Hans`` is no file of ``zh-TW``.
    """
    found = sorted(name for name in names if _is_of(name, language))
    return next((name for name in found if name in (language, _tag(language))), found[0] if found else None)


def for_cldr(language: str) -> list[str]:
    """What CLDR may call a language, the closest first: ``srp_Latn`` is its ``sr-Latn``."""
    tag, code, script = _tag(language), genealogy.code(language), script_said(language)
    shorter = [] if code is None else [f"{code}-{script}", code] if script else [code]
    return list(dict.fromkeys([tag.replace("_", "-"), *shorter]))


def script_said(language: str) -> str | None:
    """The script that a name says (ISO 15924), and that of Chinese also where it does not: ``Hans``."""
    return languages.language(_tag(language)).script


def _is_of(name: str, language: str) -> bool:
    tag = _tag(language)
    if name in (language, tag):
        return True
    codes = {genealogy.code(name), languages.language(name).code} - {None}
    if codes.isdisjoint({genealogy.code(tag), languages.language(tag).code}):
        return False
    return len({_script(name), _script(tag)} - {None}) < 2


def _script(tag: str) -> str | None:
    """What a language is written in, as far as that is known; the two scripts of Chinese are two."""
    own = languages.language(tag)
    return own.script if own.code == "zho" else genealogy.script(tag)


def _tag(language: str) -> str:
    """Without the data set's name before it: ``de`` of ``xquad:de``."""
    return language.rpartition(":")[2]
