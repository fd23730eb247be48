"""One language under several names: which file of texts is whose, and what CLDR calls it."""

from pathlib import Path

import pytest

from multitune.data.sets import cldr
from multitune.probes import pairs, spelling, texts

SIB = "ace_Arab ace_Latn arb_Arab arb_Latn ckb_Arab deu_Latn ekk_Latn eng_Latn kmr_Latn kor_Hang zho_Hans zho_Hant"


@pytest.mark.parametrize(
    ("language", "names", "expected"),
    [
        ("de", SIB, "deu_Latn"),
        ("xquad:de", SIB, "deu_Latn"),
        ("arb_Latn", SIB, "arb_Latn"),
        ("ar", SIB, "arb_Arab"),
        ("zh", SIB, "zho_Hans"),
        ("zh-TW", SIB, "zho_Hant"),
        ("ckb", SIB, "ckb_Arab"),
        ("ku", SIB, "kmr_Latn"),
        ("ko", SIB, "kor_Hang"),
        ("et", SIB, "ekk_Latn"),
        ("ace_Latn", SIB, "ace_Latn"),
        ("fon_Latn", SIB, None),
        ("zho_Hant", "zho_Hans", None),
        ("zh-TW", "cmn", None),
        ("zh", "cmn", "cmn"),
        ("sr-Latn", "sr sr-Cyrl sr-Latn", "sr-Latn"),
        ("srp_Latn", "sr-Cyrl sr-Latn", "sr-Latn"),
        ("sr", "sr-Cyrl sr-Latn", "sr-Cyrl"),
        ("pt-PT", "pt-BR pt-PT", "pt-PT"),
        ("pt-PT", "pt", "pt"),
    ],
)
def test_the_file_of_a_language_is_in_its_script(language: str, names: str, expected: str | None) -> None:
    assert spelling.of_language(reversed(names.split()), language) == expected


@pytest.mark.parametrize(
    ("language", "china"),
    [
        *[(name, "中国") for name in ("zh", "zho_Hans", "zh-CN", "mlqa:zh")],
        *[(name, "中國") for name in ("zho_Hant", "zh-TW")],
        *[(name, "Кина") for name in ("sr", "srp_Cyrl")],
        *[(name, "Kina") for name in ("sr-Latn", "srp_Latn")],
        *[("ckb_Arab", "چین"), ("kmr_Latn", "Çîn"), ("kor_Hang", "중국"), ("jpn_Jpan", "中国"), ("iw", "סין")],
        ("arb_Latn", None),
    ],
)
def test_names_of_cldr_are_in_the_script_of_the_language(language: str, china: str | None) -> None:
    names = cldr.names(spelling.for_cldr(language), spelling.script_said(language))
    assert names.get("territory CN") == china


def sib200(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).mkdir()
        (folder / name / "test.tsv").write_text(f"index_id\tcategory\ttext\n7\tnews\t{name}\n", encoding="utf-8")
    return folder


def test_each_script_of_sib200_has_its_own_texts(tmp_path: Path) -> None:
    folder = sib200(tmp_path, *SIB.split())
    languages = ["zho_Hans", "zho_Hant", "arb_Latn", "ace_Latn", "en"]
    translated = {k: own.translations for k, own in pairs.from_folder(folder, languages).items()}
    assert translated == {k: [k] for k in languages[:-1]}, "English is what texts are translated from"
    assert texts.from_folder(folder, languages) == {k: [k] for k in languages[:-1]} | {"en": ["eng_Latn"]}


def test_files_of_two_scripts_are_two_languages(tmp_path: Path) -> None:
    for name in ("sr-Cyrl", "sr-Latn", "pt", "xx"):
        (tmp_path / f"{name}.txt").write_text(f"{name}\n", encoding="utf-8")
    found = texts.from_folder(tmp_path, ["sr-Latn", "sr-Cyrl", "pt-BR", "pt-PT"])
    own = {"sr-Latn": ["sr-Latn"], "sr-Cyrl": ["sr-Cyrl"], "pt-BR": ["pt"], "pt-PT": ["pt"]}
    assert found == own | {"xx": ["xx"]}
