"""Labels as people write them: tag schemes, numbers, blanks, mixed types, and what bad training records hide."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from builders import real_data
from multitune.data.bad import BadRecord, BadRecords
from multitune.data.corpus import Corpus
from multitune.data.label_spelling import lookalikes, stripped
from multitune.data.tag_schemes import SCHEMES
from multitune.errors import UserError
from multitune.recipe import Recipe
from multitune.training.loading import load_corpus, read_corpus

CONVERTED = {
    # scheme, tags, what they are in IOB2
    "iob1": ("iob1", "I-PER I-PER O I-LOC", "B-PER I-PER O B-LOC"),
    "iob1, two in a row": ("iob1", "I-PER B-PER I-PER", "B-PER B-PER I-PER"),
    "iob1, another type": ("iob1", "I-PER I-LOC I-LOC", "B-PER B-LOC I-LOC"),
    "iob1 of IOB2": ("iob1", "B-PER I-PER O B-PER", "B-PER I-PER O B-PER"),
    "iob1, a type with a hyphen": ("iob1", "I-a-b I-a-b I-a", "B-a-b I-a-b B-a"),
    "bioes": ("bioes", "S-PER B-LOC E-LOC O B-X I-X E-X", "B-PER B-LOC I-LOC O B-X I-X I-X"),
    "bilou": ("bioes", "U-PER B-LOC L-LOC O", "B-PER B-LOC I-LOC O"),
    "bioes of IOB2": ("bioes", "B-PER I-PER O B-PER", "B-PER I-PER O B-PER"),
    "iob2": ("iob2", "B-PER I-PER O", "B-PER I-PER O"),
}


@pytest.mark.parametrize(("scheme", "tags", "expected"), CONVERTED.values(), ids=CONVERTED)
def test_schemes(scheme: str, tags: str, expected: str) -> None:
    assert SCHEMES[scheme](tags.split()) == expected.split()
    assert SCHEMES["iob2"](expected.split()) == expected.split()


REFUSED = {
    "iob1, a single": ("iob1", "O S-PER", 1, "tag 'S-PER' is not of scheme: iob1: O, B-TYPE, I-TYPE are allowed"),
    "iob1, no type": ("iob1", "I-", 0, "tag 'I-' is not of scheme: iob1"),
    "bioes, an end alone": ("bioes", "O E-PER", 1, "'E-PER' after 'O' is not BIOES: an entity begins with B-PER"),
    "bioes, after an end": ("bioes", "B-X E-X I-X", 2, "'I-X' after 'E-X' is not BIOES"),
    "iob2, IOB1": ("iob2", "O I-PER", 1, "begins with B-PER; scheme: iob1 converts it"),
    "iob2, BIOES": ("iob2", "S-PER", 0, "B-TYPE or I-TYPE is allowed; scheme: bioes converts it"),
    "iob2, a number": ("iob2", "3", 0, "B-TYPE or I-TYPE is allowed; label_names: says what numbers stand for"),
}


@pytest.mark.parametrize(("scheme", "tags", "label", "said"), REFUSED.values(), ids=REFUSED)
def test_tags_of_no_scheme(scheme: str, tags: str, label: int, said: str) -> None:
    with pytest.raises(BadRecord) as raised:
        SCHEMES[scheme](tags.split())
    assert said in str(raised.value)
    assert raised.value.label == label


def own(folder: Path, train: str, dev: str | None = None, *, name: str = "xx.tsv", **keys: Any) -> Corpus:
    """A corpus of a user's own files, as a recipe reads it."""
    (folder / f"train-{name}").write_text(train)
    (folder / f"dev-{name}").write_text(train if dev is None else dev)
    return load_corpus(Recipe(**({"data": "folder", "path": str(folder)} | keys)))


CONLL_2003 = (
    "-DOCSTART- -X- -X- O\n\nAnna NNP I-NP I-PER\nMay NNP I-NP I-PER\nin IN I-PP O\n\n# next\nOslo NNP I-NP I-LOC\n"
)


@pytest.mark.parametrize("scheme", ["iob1", None])
def test_conll_2003_as_it_is_published(tmp_path: Path, caplog: pytest.LogCaptureFixture, scheme: str | None) -> None:
    """Four columns with spaces between, marks of documents, comments, IOB1."""
    if scheme is None:
        with pytest.raises(UserError, match=r"train-xx\.tsv:3: 'I-PER' after 'O' is not IOB2.*; scheme: iob1 converts"):
            own(tmp_path, CONLL_2003, data="panx")
        return
    corpus = own(tmp_path, CONLL_2003, data="panx", scheme=scheme)
    records = [(" ".join(record["tokens"]), " ".join(record["tags"])) for record in corpus.train["xx"]]
    assert records == [("Anna May in", "B-PER I-PER O"), ("Oslo", "B-LOC")]
    assert corpus.labels == ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")
    assert "train-xx.tsv: 2 tags are converted from iob1 to IOB2" in caplog.text


def lines(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


TAGS = {"tokens": "tokens", "tags": "tags"}


@pytest.mark.parametrize(
    ("tags", "keys"),
    [
        (["S-PER", "O"], {"scheme": "bioes"}),
        (["I-PER", "O"], {"scheme": "iob1"}),
        (["B-PER ", "\u200bO"], {"strip_labels": True}),
        ([1, 0], {"label_names": ["O", "B-PER"]}),
        ("1 0", {"label_names": ["O", "B-PER"]}),
        ([1, "O"], {"label_names": ["O", "S-PER"], "scheme": "bioes"}),
    ],
)
def test_tags_of_own_files(tmp_path: Path, tags: Any, keys: dict[str, Any]) -> None:
    text = lines({"tokens": ["Anna", "lacht"], "tags": tags})
    corpus = own(tmp_path, text, name="xx.jsonl", columns=TAGS, **keys)
    assert list(corpus.train["xx"]) == [{"tokens": ["Anna", "lacht"], "tags": ["B-PER", "O"]}]
    assert corpus.labels == ("B-PER", "I-PER", "O")


def test_a_single_file_is_converted_in_every_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = [{"tokens": [f"Anna{number}", "lacht"], "tags": ["S-PER", "O"]} for number in range(60)]
    (tmp_path / "xx.jsonl").write_text(lines(*records))
    corpus = load_corpus(Recipe(data="folder", path=str(tmp_path), columns=TAGS, scheme="bioes"))
    assert {tag for split in (corpus.train, corpus.dev, corpus.test) for row in split["xx"] for tag in row["tags"]} == {
        "B-PER",
        "O",
    }
    assert caplog.text.count("xx.jsonl: 60 tags are converted from bioes to IOB2") == 1


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (7, "label '7' is none of label_names, which has 0 to 1 and their names"),
        ("2.0", "label '2.0' is none of"),
        ("9" * 5000, "label '999"),
    ],
)
def test_numbers_without_a_name(tmp_path: Path, label: Any, said: str) -> None:
    text = lines({"text": "a", "label": 1}, {"text": "b", "label": label})
    with pytest.raises(UserError, match=f"train-xx.jsonl:2: {said}"):
        own(tmp_path, text, name="xx.jsonl", label_names=["bad", "good"])


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"data": "udpos", "scheme": "iob1"}, "scheme: data: udpos has no entity tags; its records are of pos_tagging"),
        ({"data": "udpos", "label_names": ["X"]}, "label_names: data: udpos has labels of its own: ADJ, ADP"),
        ({"scheme": "iob1"}, "scheme: data: folder has no entity tags; its records are of classification"),
        (
            {"columns": {"source": "text", "target": "label"}, "strip_labels": True},
            "strip_labels: data: folder has no labels; its records are of translation",
        ),
        ({"data": "assistant", "path": None, "strip_labels": True}, "strip_labels: the labels of data: assistant are"),
    ],
)
def test_keys_that_nothing_would_read(tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    text = "a\tX\n" if keys.get("data") == "udpos" else "text\tlabel\na\tX\n"
    (tmp_path / "test-xx.tsv").write_text(text)
    with pytest.raises(UserError, match=said):
        own(tmp_path, text, **keys)


TABLE = "text,label\na,News \nb, News\nc,News\nd,Sport\ne,news\nf,Ne\u200bws\n"


def test_labels_that_look_alike_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    corpus = own(tmp_path, TABLE, name="xx.csv")
    assert len(corpus.labels) == 6
    assert "labels that differ by blanks, capitals, composed accents, invisible characters or .0 alone" in caplog.text
    assert r"' News', 'News', 'News ', 'Ne\u200bws', 'news'; strip_labels: true takes off blanks" in caplog.text


def test_all_labels_that_look_alike_are_told_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own(tmp_path, "text,label\na,News\nb,news\nc,Sport\nd,sport\n", name="xx.csv")
    (told,) = [each for each in caplog.messages if "differ by blanks" in each]
    assert told.endswith("are labels of their own: 'News', 'news'; 'Sport', 'sport'; labels: takes one for another")


def test_blanks_are_taken_off_where_that_is_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    corpus = own(tmp_path, TABLE, name="xx.csv", strip_labels=True)
    assert corpus.labels == ("News", "Ne\u200bws", "Sport", "news")
    own(tmp_path, TABLE[: TABLE.index("e,")], name="xx.csv", strip_labels=True)
    assert caplog.text.count("differ by blanks") == 1


def test_a_label_that_only_dev_writes_with_a_blank(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own(tmp_path, "text,label\nx,a\ny,b\n", "text,label\nx,b \n", name="xx.csv")
    said = "xx: 'b ' (1); 'b ' differs from 'b' by blanks, capitals, composed accents or .0 alone; strip_labels: true"
    assert said in caplog.text


def test_labels_that_differ_by_how_accents_are_composed_are_shown_apart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own(tmp_path, "text,label\na,caf\u00e9\nb,cafe\u0301\nc,Café\n", "text,label\nx,y\u00e9\n", name="xx.csv")
    assert r"of their own: 'Café', 'cafe\u0301', 'caf\xe9'" in caplog.text
    own(tmp_path, "text,label\na,b\u00e9\nb,c\n", "text,label\nx,be\u0301\n", name="xx.csv")
    assert r"'be\u0301' differs from 'b\xe9' by blanks" in caplog.text


def test_labels_that_are_blank_once_they_are_stripped(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train-xx\.csv:3: the label is blank"):
        own(tmp_path, "text,label\nx,a\ny,\u200b\n", name="xx.csv", strip_labels=True)


def test_what_is_seen_of_labels() -> None:
    assert [stripped(label) for label in ("\u00a0a b\t", "\ufeffa b", "\u200b ", "a b")] == ["a b", "a b", "", "a b"]
    assert lookalikes(["a b", "ab", "A B", "c", "é", "e\u0301"]) == [["a b", "ab", "A B"], ["é", "e\u0301"]]
    assert lookalikes(["1", "1.0", "2.00", "2.5", "v1.0", "v1"]) == [["1", "1.0"]]


MIXED = {
    # labels of a JSONL file, what is said, whether that is an error
    "a truth value among numbers": ([0, 1, True], "jsonl:3: label is True, and labels before it are such as 0", True),
    "a number among truth values": ([True, 1], "jsonl:2: label is 1, and labels before it are such as True", True),
    "a text among truth values": ([False, "no"], "label is 'no', and labels before it are such as False", True),
    "numbers and texts": ([0, "1", 1], "labels of mixed types, numbers and texts such as 0 and '1'", False),
    "truth values alone": ([True, False], "", False),
    "numbers alone": ([1, 2], "", False),
}  # fmt: skip


@pytest.mark.parametrize(("labels", "said", "refused"), MIXED.values(), ids=MIXED)
def test_labels_of_mixed_types(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, labels: list[Any], said: str, refused: bool
) -> None:
    text, dev = (
        lines(*({"text": f"{split}{number}", "label": label} for number, label in enumerate(labels))) for split in "td"
    )
    if refused:
        with pytest.raises(UserError, match=said):
            own(tmp_path, text, name="xx.jsonl")
    else:
        own(tmp_path, text, dev, name="xx.jsonl")
        assert [message for message in caplog.messages if said not in message] == []
        assert len(caplog.messages) == (said != "")


def test_parts_of_speech_of_mixed_types(tmp_path: Path) -> None:
    text = lines({"tokens": ["a"], "pos": ["X"]}, {"tokens": ["b", "c"], "pos": ["X", True]})
    with pytest.raises(UserError, match=r"train-xx\.jsonl:2: pos\[1\] is true or false; it must be text"):
        own(tmp_path, text, name="xx.jsonl", columns={"tokens": "tokens", "pos": "pos"})


def test_bad_training_records_do_not_make_good_ones_bad(tmp_path: Path) -> None:
    """Every training line with B-PER is bad: dev's good sentences are not listed beside them, nor left out."""
    for split, mark in (("train", "\t"), ("dev", "")):
        text = "".join(f"Bela{number}\tB-PER{mark}\n\n" for number in range(3)) + "Oslo\tB-LOC\nsees\tO\n"
        (tmp_path / f"{split}-xx.tsv").write_text(text)
    bad = BadRecords()
    corpus = read_corpus(Recipe(data="panx", path=str(tmp_path)), bad)
    assert {place for place, _ in bad} == {f"{tmp_path}/train-xx.tsv:{line}" for line in (1, 3, 5)}
    assert corpus.skipped == {"xx": 3}
    assert len(corpus.dev["xx"]) == 4


def test_labels_of_a_set_that_fixes_them(tmp_path: Path) -> None:
    text = "a\tADJ\nb\tFOO\n"
    (tmp_path / "test-xx.tsv").write_text(text)
    with pytest.raises(UserError, match=r"train-xx\.tsv:2: tag 'FOO' is none of data: udpos, which has ADJ, ADP, "):
        own(tmp_path, text, data="udpos")


def test_real_entities_are_iob2_under_every_scheme(caplog: pytest.LogCaptureFixture) -> None:
    """What the schemes convert is theirs alone: PAN-X, which is IOB2, comes out as it is."""
    folder = str(real_data("panx"))
    plain = load_corpus(Recipe(data="panx", path=folder, languages=("jv",), unseen=()))
    for scheme in ("iob1", "bioes", "iob2"):
        corpus = load_corpus(Recipe(data="panx", path=folder, languages=("jv",), unseen=(), scheme=scheme))
        assert list(corpus.train["jv"]) == list(plain.train["jv"])
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
