"""Token-tag files and PAN-X folders: what is read, and what is refused in one line."""

from pathlib import Path
from typing import Any

import pytest

from builders import real_data
from multitune.data import conll, sets
from multitune.data.bad import BadRecords
from multitune.data.corpus import Corpus
from multitune.errors import UserError
from multitune.tasks import TASKS

LRM = chr(0x200E)


def panx(folder: Path | None, **options: Any) -> Corpus:
    bad = BadRecords()
    corpus = sets.load("panx", bad, TASKS, path=None if folder is None else str(folder), **options)
    bad.refuse()
    return corpus


def file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "train-xx.tsv"
    path.write_bytes(text.encode("utf-8"))
    return path


READABLE = {
    "plain": "a\tO\nb\tB-PER\n\nc\tO\n",
    "no newline at the end": "a\tO\nb\tB-PER\n\nc\tO",
    "byte-order mark": "\ufeffa\tO\nb\tB-PER\n\nc\tO\n",
    "files joined with their marks": "\ufeffa\tO\nb\tB-PER\n\n\ufeffc\tO\n",
    "carriage returns": "a\tO\r\nb\tB-PER\r\n\r\nc\tO\r\n",
    "five columns, the word's number first": "1 a N x O\n2 b N x B-PER\n\n1 c N x O\n",
    "blank lines around": "\n\na\tO\nb\tB-PER\n\n\n \t\nc\tO\n\n\n",
}


@pytest.mark.parametrize("text", READABLE.values(), ids=READABLE)
def test_reads(tmp_path: Path, text: str) -> None:
    assert list(conll.read(file(tmp_path, text), strict=True)) == [
        {"tokens": ["a", "b"], "tags": ["O", "B-PER"]},
        {"tokens": ["c"], "tags": ["O"]},
    ]


@pytest.mark.parametrize("token", ['"', LRM, "\u2028", "#", "-"])
def test_odd_tokens_are_tokens(tmp_path: Path, token: str) -> None:
    assert list(conll.read(file(tmp_path, f"{token}\tO\nb\tO\n"))) == [{"tokens": [token, "b"], "tags": ["O", "O"]}]


REFUSED = {
    "three columns": ("a\tO\nb\tx\tO\n", ":2", "3 columns"),
    "five columns without numbers": ("a N x y O\n", ":1", "begins with 'a'; the first of 5 columns is the word's"),
    "five columns of which one number is left out": ("1 a N x O\n3 b N x O\n", ":2", "begins with '3'"),
    "one column": ("a\n", ":1", "1 columns"),
    "no tag": ("a\tO\n\nb\t\n", ":3", "tag is empty"),
    "no token": ("\tO\n", ":1", "token is empty"),
    "not a tag": ("a\tO\nb\tPER\n", ":2", "'PER' is not IOB2"),
    "opens with I": ("a\tO\nb\tI-PER\n", ":2", "'I-PER' after 'O'"),
    "I of another type": ("a\tB-LOC\nb\tI-PER\n", ":2", "'I-PER' after 'B-LOC'"),
    "I after a blank line": ("a\tB-PER\n\nb\tI-PER\n", ":3", "'I-PER' after 'O'"),
}


@pytest.mark.parametrize(("text", "place", "said"), REFUSED.values(), ids=REFUSED)
def test_refuses_naming_file_and_line(tmp_path: Path, text: str, place: str, said: str) -> None:
    path = file(tmp_path, text)
    with pytest.raises(UserError) as error:
        list(conll.read(path, strict=True))
    assert f"{path}{place}" in str(error.value)
    assert said in str(error.value)


def test_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "train-xx.tsv"
    path.write_bytes(b"a\tO\n\xff\tO\n")
    with pytest.raises(UserError, match="not UTF-8"):
        list(conll.read(path))


def test_folder_by_default_trains_on_what_has_train_files(tiny_panx: Path) -> None:
    corpus = panx(tiny_panx)
    assert list(corpus.train) == ["aa", "bb"]
    assert list(corpus.test) == ["aa", "bb", "cc"]
    assert corpus.labels == ("B-LOC", "B-PER", "I-PER", "O")
    assert {language: len(rows) for language, rows in corpus.train.items()} == {"aa": 60, "bb": 20}


FOLDERS = {
    "no folder": ({}, {}, "path"),
    "no train file": ({"train-aa.tsv": None}, {"languages": ["aa"]}, "no data for 'aa' .*train-aa.tsv"),
    "no dev file": ({"dev-bb.tsv": None}, {}, "no data for 'bb' .*dev-bb.tsv"),
    "empty train file": ({"train-aa.tsv": ""}, {}, "train-aa.tsv: holds no record"),
    "not IOB2 in training": ({"train-bb.tsv": "x\tI-PER\n"}, {}, "train-bb.tsv:1"),
    "unknown unseen language": ({}, {"unseen": ["zz"]}, "unseen: no data for 'zz'"),
}


@pytest.mark.parametrize(("files", "options", "said"), FOLDERS.values(), ids=FOLDERS)
def test_bad_folders(
    tmp_path: Path, tiny_panx: Path, files: dict[str, str | None], options: dict[str, list[str]], said: str
) -> None:
    for source in tiny_panx.iterdir():
        text = files.get(source.name, source.read_text())
        if text is not None:
            (tmp_path / source.name).write_text(text)
    folder = None if said == "path" else tmp_path
    with pytest.raises(UserError, match=said):
        panx(folder, **options)


def test_an_unseen_set_is_read_as_it_was_published(
    tmp_path: Path, tiny_panx: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for source in tiny_panx.iterdir():
        (tmp_path / source.name).write_text(source.read_text())
    (tmp_path / "dev-cc.tsv").write_text("x\tO\ny\tI-PER\nz\tI-PER\n")
    assert panx(tmp_path).test["cc"][0]["tags"] == ["O", "I-PER", "I-PER"]
    assert "dev-cc.tsv: 1 I- tags open an entity" in caplog.text


@pytest.mark.check
def test_real_counts() -> None:
    folder = real_data("panx")
    corpus = panx(folder)
    train = {"de": 20000, "en": 20000, "es": 20000, "hi": 5000, "jv": 100, "kk": 1000}
    train |= {"mr": 5000, "my": 100, "sw": 1000, "te": 1000, "tl": 10000, "yo": 100}
    assert {language: len(rows) for language, rows in corpus.train.items()} == train
    assert len(corpus.test) == 22
    assert sorted({len(rows) for rows in corpus.test.values()}) == [100, 1000, 10000]
    assert corpus.labels == ("B-LOC", "B-ORG", "B-PER", "I-LOC", "I-ORG", "I-PER", "O")
