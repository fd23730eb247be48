"""Typological distances: the package's own, from its file alone."""

import logging
from pathlib import Path

import pytest

from multitune.data.languages import standards
from multitune.probes import genealogy, typology

needs_data = pytest.mark.skipif(typology.source() is None, reason="needs urielplus (the extra typology)")

STANDARDS = {"de": ["deu"], "fa_IR": ["pes", "fas"], "iw": ["heb"], "zho_Hant": ["zho", "cmn"], "sr-Latn": ["srp"]}
SCRIPTS = {
    "de": "Latin",
    "xquad:ar": "Arabic",
    "sr": "Cyrillic",
    "sr-Latn": "Latin",
    "zh_TW": "Han",
    "mni_Mtei": "Mtei",
    "xx": None,
}
PUBLISHED = {("de", "nl"): 0.2752, ("zh-CN", "ja"): 0.5246, ("xquad:ru", "fi"): 0.4139}
"""What ``URIELPlus().new_distance("featural", ...)`` of urielplus 1.3.2 says of deu, nld; zho, jpn; rus, fin."""


@pytest.mark.parametrize(("tag", "codes"), STANDARDS.items())
def test_a_language_has_its_code_and_those_of_what_it_is_a_standard_of(tag: str, codes: list[str]) -> None:
    assert standards(tag) == codes


@pytest.mark.parametrize(("tag", "script"), SCRIPTS.items())
def test_scripts(tag: str, script: str | None) -> None:
    assert genealogy.script(tag) == script


@needs_data
@pytest.mark.parametrize(("one", "other"), PUBLISHED)
def test_distances_are_those_of_the_package(one: str, other: str) -> None:
    found = typology.likeness(one, other)
    assert found is not None
    assert found.distance == pytest.approx(PUBLISHED[one, other], abs=5e-5)
    assert found == typology.likeness(other, one)
    assert found.shared > 200


@needs_data
def test_too_few_shared_features_give_no_distance_and_are_counted() -> None:
    assert typology.likeness("sr", "hr") == (None, 12)
    assert typology.likeness("de", "xx") is None
    assert typology.likeness("de", "de") == (0.0, 270)


@needs_data
def test_reading_leaves_logging_alone_and_one_file_knows_the_package() -> None:
    handlers, level = list(logging.root.handlers), logging.root.level
    typology.likeness("de", "fr")
    assert (logging.root.handlers, logging.root.level) == (handlers, level)
    source = Path(typology.__file__).parents[1]
    users = {path.name for path in source.rglob("*.py") if "urielplus" in path.read_text(encoding="utf-8")}
    assert users == {"typology.py"}
