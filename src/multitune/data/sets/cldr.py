"""Words of a language from CLDR, the Unicode locale data: countries, cities, days. Needs the package babel."""

import logging
import re
from collections.abc import Iterable

from babel import Locale, UnknownLocaleError
from babel.core import get_global
from babel.units import format_unit

log = logging.getLogger(__name__)

_PLACE_ZONE = re.compile(r"(Africa|America|Asia|Australia|Europe)/(\w+)")
_NOT_COUNTRIES = {"EU", "EZ", "QO", "UN", "XA", "XB", "ZZ"}  # unions, test locales, "unknown"
_QUANTITIES = ("mass-gram", "mass-kilogram", "volume-cup", "volume-liter", "volume-tablespoon")
_ALL_CITIES = 250  # fewer named ones: CLDR only lists those that the time zone's own name does not spell
_PLAIN_WORDS = re.compile(r"[^()\[\]{}<>|/:;,0-9]{2,30}")


def words(language: str) -> dict[str, list[str]]:
    """Kind of word -> words, in an order of their own: "territory", "region", "city", "language", "day", "quantity".

    A kind for which CLDR has no word in this language is filled with its cities. ``language`` is a code such as
    ``"pt-BR"``; CLDR gives a regional one what it lacks from the base language. A language that CLDR does not know gets
    English words, and a warning.

    Only data that CLDR states for the locale itself are read. Data that it inherits through an alias (stand-alone
    months, narrow days) are not: babel 2.18 caches the first locale's answer for all that are loaded after it.
    """
    locale = _locale(language)
    of_kind = {
        "territory": list(_countries(locale).values()),
        "region": [name for code, name in locale.territories.items() if code.isdigit()],
        "city": _cities(locale),
        "language": [name for code, name in locale.languages.items() if len(code) == 2],
        "day": list(locale.days["format"]["wide"].values()),
    }
    plain = {kind: sorted(set(filter(_PLAIN_WORDS.fullmatch, names))) for kind, names in of_kind.items()}
    plain["quantity"] = _quantities(locale)
    return {kind: names or plain["city"] for kind, names in plain.items()}


def names(spellings: Iterable[str], script: str | None = None) -> dict[str, str]:
    """What a language calls the world's countries and languages: CLDR's code -> name; empty where CLDR has none.

    Args:
        spellings: of the language's code; the first that CLDR knows counts.
        script: (ISO 15924) that the names have to be written in; None for any.
    """
    locale = next((one for code in spellings if (one := _known(code)) and script in (None, _script(one))), None)
    if locale is None:
        return {}
    countries = {f"territory {code}": name for code, name in _countries(locale).items()}
    return countries | {f"language {code}": name for code, name in locale.languages.items() if len(code) == 2}


def _known(code: str) -> Locale | None:
    try:
        return Locale.parse(code, sep="-")
    except (UnknownLocaleError, ValueError):  # the latter for what is no code at all
        return None


def _script(locale: Locale) -> str | None:
    """What CLDR writes a locale in; Korean's mixed script is ``Hang``, as names of data sets have it."""
    likely = get_global("likely_subtags").get(locale.language, "").split("_")
    script = locale.script or (likely[1] if len(likely) > 1 else None)
    return "Hang" if script == "Kore" else script


def _countries(locale: Locale) -> dict[str, str]:
    return {code: name for code, name in locale.territories.items() if code.isalpha() and code not in _NOT_COUNTRIES}


def _locale(language: str) -> Locale:
    try:
        return Locale.parse(language, sep="-")
    except UnknownLocaleError:
        log.warning("CLDR does not know the language %r: rooms and devices get English names", language)
        return Locale("en")


def _cities(locale: Locale) -> list[str]:
    places = [match for zone in get_global("zone_territories") if (match := _PLACE_ZONE.fullmatch(zone))]
    named = {place[0]: locale.time_zones.get(place[0], {}).get("city") for place in places}
    if sum(city is not None for city in named.values()) >= _ALL_CITIES:
        return [city for city in named.values() if city is not None]
    return [named[place[0]] or place[2].replace("_", " ") for place in places]


def _quantities(locale: Locale) -> list[str]:
    """Phrases such as "5 litres"; babel writes the unit's code where it has no name for it, which is left out."""
    phrases = [
        (unit, format_unit(count, unit, "long", locale=locale)) for unit in _QUANTITIES for count in range(2, 10)
    ]
    return [phrase for unit, phrase in phrases if unit not in phrase]
