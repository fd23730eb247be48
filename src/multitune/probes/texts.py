"""Texts in many languages for a language model to read: names from CLDR, SIB-200's sentences, or a user's files."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from multitune.data.lines import numbered
from multitune.errors import UserError
from multitune.probes import genealogy, spelling
from multitune.probes.pairs import by_number
from multitune.seeds import seeded

CLDR = "names of countries and languages (CLDR), ten a text"
MOST = 20
"""Texts a language, at most."""
NAMES = 10
"""Names in a text of CLDR's."""
OTHERS = ("ar", "de", "en", "fi", "hi", "id", "sw", "tr", "zh")
"""Languages of many families that are read beside a run's own."""


def with_others(languages: Iterable[str]) -> list[str]:
    """A run's languages, and those of ``OTHERS`` that are not among them."""
    own = list(languages)
    known = {genealogy.code(language) for language in own}
    return [*own, *(other for other in OTHERS if other not in known)]


def from_cldr(languages: Iterable[str]) -> dict[str, list[str]]:
    """Names of countries and languages, in each language that CLDR knows; always the same ones.

    Raises:
        UserError: the package babel, which has CLDR's data, is missing.
    """
    try:
        from multitune.data.sets import cldr
    except ModuleNotFoundError as error:
        raise UserError("the texts of the probe need babel: pip install 'multitune[offline]', or --texts") from error
    texts = {}
    for language in languages:
        names = list(cldr.names(spelling.for_cldr(language), spelling.script_said(language)).values())
        chosen = _chosen(names, language, MOST // 2 * NAMES)
        if chosen:
            texts[language] = [", ".join(chosen[at : at + NAMES]) for at in range(0, len(chosen), NAMES)]
    return texts


def from_folder(folder: Path, languages: Iterable[str]) -> dict[str, list[str]]:
    """SIB-200's sentences of the languages, or the lines of all files ``LANGUAGE.txt``; at most ``MOST`` each.

    Raises:
        UserError: the folder has neither, or a file of it is bad.
    """
    own = list(languages)
    texts = _of_files(folder, own) or _of_sib200(folder, own)
    if not texts:
        raise UserError(
            f"--texts: {folder} has no texts for {', '.join(own)}; it must hold a file LANGUAGE.txt for each language, "
            f"a text a line, or SIB-200's folders (deu_Latn)"
        )
    return texts


def _of_files(folder: Path, languages: Sequence[str]) -> dict[str, list[str]]:
    """Under the run's name of a language, where it has one; files of other languages under their own."""
    files = {file.stem: file for file in sorted(folder.glob("*.txt"))}
    stems = {own: stem for own in languages if (stem := spelling.of_language(files, own)) is not None}
    stems |= {stem: stem for stem in files if stem not in stems.values()}
    read = {stem: [line.strip() for _, line in numbered(file) if line.strip()] for stem, file in files.items()}
    in_order = sorted(stems.items(), key=lambda named: named[1])
    return {name: _chosen(read[stem], stem, MOST) for name, stem in in_order if read[stem]}


def _of_sib200(folder: Path, languages: Sequence[str]) -> dict[str, list[str]]:
    names = [other.name for other in folder.glob("???_????")]
    found = {language: name for language in languages if (name := spelling.of_language(names, language)) is not None}
    return {k: _chosen(list(by_number(folder / name / "test.tsv").values()), name, MOST) for k, name in found.items()}


def _chosen(texts: Sequence[str], name: str, most: int) -> list[str]:
    """At most so many, always the same, in their order."""
    order = torch.randperm(len(texts), generator=seeded(0, "texts", name))[:most].sort().values.tolist()
    return [texts[row] for row in order]
