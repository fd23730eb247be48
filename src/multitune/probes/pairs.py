"""Texts with their translations, for cross-lingual retrieval: names from CLDR, or a folder of a public set."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from multitune.data import squad
from multitune.data.lines import numbered
from multitune.errors import UserError
from multitune.probes import spelling
from multitune.seeds import seeded

MOST_NAMES, FEWEST_NAMES = 100, 20
CLDR = "names of countries and languages in English and the language (CLDR)"


@dataclass(frozen=True)
class Pairs:
    """English texts, and their translations in the same order."""

    texts: list[str]
    translations: list[str]

    def __bool__(self) -> bool:
        """Whether there are any: of none, no share can be found."""
        return bool(self.texts)


def from_cldr(languages: Iterable[str]) -> dict[str, Pairs]:
    """Names of countries and languages in English, and in each language that CLDR has enough of them for.

    Names that are spelt as in English tell nothing, and those of several codes have no one translation: both are left
    out. Of the others up to 100 are chosen, always the same.

    Raises:
        UserError: the package babel, which has CLDR's data, is missing.
    """
    try:
        from multitune.data.sets import cldr
    except ModuleNotFoundError as error:
        raise UserError("the retrieval probe needs babel: pip install 'multitune[offline]', or --pairs") from error
    english = cldr.names(["en"])
    names = {
        language: cldr.names(spelling.for_cldr(language), spelling.script_said(language)) for language in languages
    }
    of_cldr = {language: _told_apart(english, own, language) for language, own in names.items()}
    return {language: pairs for language, pairs in of_cldr.items() if len(pairs.texts) >= FEWEST_NAMES}


def _told_apart(english: Mapping[str, str], names: Mapping[str, str], language: str) -> Pairs:
    codes = [code for code, name in names.items() if code in english and name.casefold() != english[code].casefold()]
    for side in (english, names):
        times = Counter(side[code].casefold() for code in codes)
        codes = [code for code in codes if times[side[code].casefold()] == 1]
    order = torch.randperm(len(codes), generator=seeded(0, "pairs", language))[:MOST_NAMES].sort().values.tolist()
    return Pairs([english[codes[row]] for row in order], [names[codes[row]] for row in order])


def from_folder(folder: Path, languages: Iterable[str]) -> dict[str, Pairs]:
    """All the pairs with English that a folder has for the languages: Tatoeba's, SIB-200's or XQuAD's questions.

    Raises:
        UserError: it has none for any of them, or a file of it is bad.
    """
    names = list(languages)
    candidates = {name: _tatoeba(folder, name) or _sib200(folder, name) or _xquad(folder, name) for name in names}
    pairs = {name: each for name, each in candidates.items() if each}
    if not pairs:
        raise UserError(
            f"--pairs: {folder} has no pairs for {', '.join(names)}; it must hold Tatoeba's files (tatoeba.deu-eng.deu "
            f"and .eng), SIB-200's folders (deu_Latn and eng_Latn) or XQuAD's (xquad.de.json and xquad.en.json)"
        )
    return pairs


def _tatoeba(folder: Path, language: str) -> Pairs | None:
    """Line n of one file translates line n of the other."""
    by_code = {_between(file.name, "tatoeba.", "-eng.eng"): file for file in folder.glob("tatoeba.*-eng.eng")}
    code = _translated(by_code, language)
    if code is None:
        return None
    english = by_code[code]
    sides = [[text for _, text in numbered(file)] for file in (english, english.with_suffix(f".{code}"))]
    if len(sides[0]) != len(sides[1]):
        raise UserError(f"{english}: {len(sides[0])} lines, but its translation has {len(sides[1])}")
    return Pairs(*sides)


def _sib200(folder: Path, language: str) -> Pairs | None:
    """The same sentences in every language, by their numbers."""
    code = _translated((other.name for other in folder.glob("???_????")), language)
    if code is None:
        return None
    return _with_one_key(by_number(folder / "eng_Latn" / "test.tsv"), by_number(folder / code / "test.tsv"))


def _xquad(folder: Path, language: str) -> Pairs | None:
    """The same questions in every language, by their ids."""
    code = _translated((_between(other.name, "xquad.", ".json") for other in folder.glob("xquad.*.json")), language)
    if code is None:
        return None
    return _with_one_key(_questions(folder / "xquad.en.json"), _questions(folder / f"xquad.{code}.json"))


def _translated(codes: Iterable[str], language: str) -> str | None:
    """The code of a language among those of files, if it is one that English texts are translated into."""
    return None if spelling.is_english(language) else spelling.of_language(codes, language)


def _between(name: str, first: str, last: str) -> str:
    return name.removeprefix(first).removesuffix(last)


def _with_one_key(english: Mapping[str, str], own: Mapping[str, str]) -> Pairs:
    shared = [key for key in english if key in own]
    return Pairs([english[key] for key in shared], [own[key] for key in shared])


def _questions(file: Path) -> dict[str, str]:
    return {record["id"]: record["question"] for record in squad.read(file)}


def by_number(file: Path) -> dict[str, str]:
    """index_id -> text of one of SIB-200's files; the first line is a header."""
    texts = {}
    for line, row in islice(numbered(file), 1, None):
        columns = row.split("\t")
        if len(columns) != 3:
            raise UserError(f"{file}:{line}: {len(columns)} columns; there must be three: index_id, category, text")
        texts[columns[0]] = columns[2]
    return texts
