"""Inputs of public reports about other tools (docs/field-log.md): each is read whole, or refused with file and line."""

from pathlib import Path

import pytest

from multitune.data import tabular
from multitune.data.bad import BadRecords
from multitune.data.corpus import Corpus
from multitune.data.sets import load
from multitune.errors import UserError
from multitune.tasks import TASKS


def own(folder: Path, name: str, text: str) -> Corpus:
    for split in ("train", "dev", "test"):
        (folder / f"{split}-xx.{name}").write_bytes(text.encode())
    bad = BadRecords()
    corpus = load("folder", bad, TASKS, path=str(folder))
    bad.refuse()
    return corpus


SEPARATED = {
    "jsonl": '{"text": "a\u2028b\u2029c\x85d", "label": "x"}\n' * 12,
    "csv": "text,label\n" + "a\u2028b\u2029c\x85d,x\n" * 12,
    "tsv": "text\tlabel\n" + "a\u2028b\u2029c\x85d\tx\n" * 12,
}


@pytest.mark.parametrize(("name", "text"), SEPARATED.items(), ids=SEPARATED)
def test_separators_of_unicode_end_no_record(tmp_path: Path, name: str, text: str) -> None:
    records = list(own(tmp_path, name, text).train["xx"])
    assert records == [{"text": "a\u2028b\u2029c\x85d", "label": "x"}] * 12


@pytest.mark.parametrize("name", ["csv", "tsv"])
def test_labels_that_other_readers_take_for_missing(tmp_path: Path, name: str) -> None:
    labels = ["NA", "NaN", "None", "nan", "null"]
    rows = [("text", "label"), *((f"a {label}", label) for label in labels)]
    between = "\t" if name == "tsv" else ","
    corpus = own(tmp_path, name, "".join(between.join(row) + "\n" for row in rows))
    assert list(corpus.labels) == labels


def test_no_label_is_rounded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train-xx.jsonl:2: label is 1.6; it must be text or a whole number \("):
        own(tmp_path, "jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": 1.6}\n')


@pytest.mark.parametrize(
    ("columns", "row"),
    [
        ({"text": "a", "label": "b"}, "x,\"['u', 'v']\"\n"),
        ({"text": "a", "labels": "b"}, "x,\"['u', 'v|w']\"\n"),
        ({"tokens": "b", "pos": "a"}, 'X,"[""u"", ""v""]"\n'),
    ],
)
def test_lists_that_a_program_has_printed_are_told(tmp_path: Path, columns: dict[str, str], row: str) -> None:
    bad = BadRecords()
    assert list(tabular.read(write(tmp_path, "a,b\n" + row), bad, columns=columns)) == []
    assert "is a list as Python prints it" in next(iter(bad))[1]


def test_an_open_quote_says_how_far_it_goes(tmp_path: Path) -> None:
    bad = BadRecords()
    list(tabular.read(write(tmp_path, 'text,label\na,x\n"b,x\n' + "c,x\n" * 7), bad))
    assert list(bad) == [
        (
            f"{tmp_path}/x.csv:3",
            "broken quoting (unexpected end of data); a quote within a value is doubled; no row is read up to line 10",
        )
    ]


def write(folder: Path, text: str) -> Path:
    (folder / "x.csv").write_text(text)
    return folder / "x.csv"


def test_a_whole_number_with_a_point_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"label is 1.0; it must be text or a whole number, such as 1 \(programs write"):
        own(tmp_path, "jsonl", '{"text": "a", "label": 1.0}\n{"text": "b", "label": null}\n')
