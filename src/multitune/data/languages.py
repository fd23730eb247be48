"""Codes of languages: BCP 47 (zh-Hant, pt_BR, iw), ISO 639-3 with a script (deu_Latn), and what they have in common."""

import re
from functools import cache
from typing import NamedTuple

_CODES = """
af:afr am:amh ar:arb as:asm az:azj ba:bak be:bel bg:bul bm:bam bn:ben bo:bod br:bre bs:bos ca:cat cs:ces cy:cym da:dan
de:deu dz:dzo ee:ewe el:ell en:eng eo:epo es:spa et:est eu:eus fa:pes ff:fuv fi:fin fj:fij fo:fao fr:fra fy:fry ga:gle
gd:gla gl:glg gn:grn gu:guj ha:hau he:heb hi:hin hr:hrv ht:hat hu:hun hy:hye id:ind ig:ibo is:isl it:ita ja:jpn jv:jav
ka:kat kg:kon ki:kik kk:kaz km:khm kn:kan ko:kor ks:kas ku:kmr ky:kir lb:ltz lg:lug li:lim ln:lin lo:lao lt:lit lv:lvs
mg:plt mi:mri mk:mkd ml:mal mn:khk mr:mar ms:zsm mt:mlt my:mya nb:nob ne:npi nl:nld nn:nno ns:nso ny:nya oc:oci om:gaz
or:ory pa:pan pl:pol ps:pbt pt:por qu:quy rn:run ro:ron ru:rus rw:kin sa:san sc:srd sd:snd sg:sag si:sin sk:slk sl:slv
sm:smo sn:sna so:som sq:als sr:srp ss:ssw st:sot su:sun sv:swe sw:swh ta:tam te:tel tg:tgk th:tha ti:tir tk:tuk tl:tgl
tn:tsn tr:tur ts:tso tt:tat tw:twi ug:uig uk:ukr ur:urd uz:uzn vi:vie wo:wol xh:xho yi:ydd yo:yor zh:zho zu:zul
"""
ISO_639_3 = dict(pair.split(":") for pair in _CODES.split())
"""Code of two letters -> code of three; of a language with several standards (ar, fa, ms) the one that models have."""
_FURTHER = """
aa ab ae ak an av ay bi ce ch co cr cu cv dv gv ho hz ia ie ii ik io iu kj kl kr kv kw la lu mh na nd ng no nr nv oj os
pi rm se to ty ve vo wa za
"""
_ISO_639_1 = (ISO_639_3.keys() | frozenset(_FURTHER.split())) - {"ns"}
"""The table above lacks some of its codes, and has one that is none."""
_STANDARD = frozenset(ISO_639_3.values())
_OTHER_NAMES = {
    "iw": "heb",
    "in": "ind",
    "ji": "ydd",
    "jw": "jav",
    "mo": "ron",
    "no": "nob",
    "fil": "tgl",
    "cmn": "zho",
    "ara": "arb",
    "aze": "azj",
    "fas": "pes",
    "ful": "fuv",
    "kur": "kmr",
    "lav": "lvs",
    "mlg": "plt",
    "mon": "khk",
    "msa": "zsm",
    "nep": "npi",
    "nor": "nob",
    "orm": "gaz",
    "ori": "ory",
    "pus": "pbt",
    "que": "quy",
    "sqi": "als",
    "swa": "swh",
    "uzb": "uzn",
    "yid": "ydd",
}
"""Older codes, and codes of three letters for what models have under one of its standards."""
_OF_COUNTRIES = (
    *("am-et", "ar-sa", "de-ch", "es-ar", "et-ee", "fr-be", "fr-ca", "hy-am", "ms-my", "nl-be", "nn-no", "pt-br"),
    *("sl-si", "sl-sl", "zh-sg", "zh-tw"),
)
"""Two codes of languages, the second of which is meant as a country's; so is one that is the first one's (de-de)."""
_MEANT_AS_COUNTRIES = ("in", "mo")
"""Older codes of languages that stand for India and Macau in en-in and zh-mo."""
RENEWED = {"iw": "he", "in": "id", "ji": "yi", "jw": "jv", "mo": "ro"}
"""Older code of two letters -> the one that took its place."""
_TRADITIONAL = ("TW", "HK", "MO")
"""Countries where Chinese is written in traditional characters."""


class Language(NamedTuple):
    """A language by its code of three letters (two, or any text, where it has none) and its script, if that is said."""

    code: str
    script: str | None


@cache
def language(tag: str) -> Language:
    """The language of a code or name: ``zh_TW`` and ``zho_Hant`` are the same."""
    first, *rest = re.split("[-_]", tag.strip())
    code = first.lower()
    code = _OTHER_NAMES.get(code) or ISO_639_3.get(code, code)
    script = next((part.title() for part in rest if len(part) == 4 and part.isalpha()), None)
    if code == "zho" and script is None:
        script = "Hant" if any(part.upper() in _TRADITIONAL for part in rest) else "Hans"
    return Language(code, script)


def standards(tag: str) -> list[str]:
    """Codes of three letters under which tables may have the language: its own, then those of what it is a standard of.

    ``fa`` and ``pes`` are both ``["pes", "fas"]``.
    """
    code = language(tag).code
    return [code, *(other for other, standard in _OTHER_NAMES.items() if standard == code and len(other) == 3)]


def is_language(tag: str) -> bool:
    """Whether this is the code of a language that the table above has, perhaps with a script or a country."""
    return language(tag).code in _STANDARD


def is_iso_639(code: str) -> bool:
    """Whether this is one of the 183 codes of ISO 639-1; of three letters, which have thousands, any may be a code."""
    return len(code) == 3 or code in _ISO_639_1


@cache
def direction(name: str) -> tuple[str | None, str]:
    """Source (if it is said) and target of translations in a file of this name: ``en-de`` is English into German."""
    source, _, target = name.partition("-")
    is_pair = _is_code(source) and _is_code(target) and language(source) != language(target)
    if name.lower() in _OF_COUNTRIES or not is_pair:
        return None, name
    return source, target


def _is_code(name: str) -> bool:
    """Whether a part of a name is a language's: ``de``, ``deu_Latn``; ``DE`` is a country's."""
    if name in _OTHER_NAMES:
        return name not in _MEANT_AS_COUNTRIES
    return name in ISO_639_3 or re.fullmatch("[a-z]{3}_[A-Z][a-z]{3}", name) is not None
