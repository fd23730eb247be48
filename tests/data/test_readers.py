"""Every reader: what it yields in seven scripts, and each kind of bad record, with its message, file and line."""

import gzip
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from builders import real_data
from multitune.data import conll, fields, pairs, parallel, squad, tabular
from multitune.data.bad import BadRecord, BadRecords
from multitune.data.corpus import Place, Record
from multitune.data.fields import Fields
from multitune.errors import UserError
from reader_cases import (
    BAD,
    GOOD,
    Read,
    article,
    dumped,
    question,
    texts,
    translations,
)

SCRIPTS = {
    "Latin": ("Grüße aus Łódź", "Łódź"),
    "Cyrillic": ("Столица — Москва", "Москва"),
    "Arabic": ("العاصمة هي القاهرة", "القاهرة"),
    "Devanagari": ("राजधानी नई दिल्ली है", "दिल्ली"),
    "Telugu": ("రాజధాని హైదరాబాద్", "హైదరాబాద్"),
    "Chinese": ("首都是北京，𠮷野家😀", "𠮷野家"),
    "Hangul": ("수도는 서울이다", "서울"),
}


@pytest.mark.parametrize(("text", "part"), SCRIPTS.values(), ids=SCRIPTS)
def test_scripts(tmp_path: Path, text: str, part: str) -> None:
    """Every format gives the text back, character for character; offsets count characters."""
    start, quoted = text.index(part), f'"{text}"'
    content = {
        "squad.json": dumped(article(text, question(start, part))),
        "conll.tsv": "".join(f"{token}\tO\n" for token in text.split()).encode(),
        "pairs.tsv": f"{quoted}\t{part}\tneutral\n".encode(),
        "source.txt.gz": gzip.compress(f"{text}\n".encode()),
        "target.txt": f"{quoted}\n".encode(),
        "own.jsonl": dumped({"text": quoted, "label": part}),
        "own.csv": f'text,label\n"""{text}""",{part}\n'.encode(),
        "own.tsv": f"label\ttext\n{part}\t{quoted}\n".encode(),
    }
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    (found,) = squad.read(tmp_path / "squad.json")
    assert found["context"][found["answers"]["answer_start"][0] :].startswith(part)
    assert list(conll.read(tmp_path / "conll.tsv")) == [{"tokens": text.split(), "tags": ["O"] * len(text.split())}]
    assert list(pairs.read(tmp_path / "pairs.tsv")) == [{"text": quoted, "text_pair": part, "label": "neutral"}]
    assert list(translations(tmp_path / "source.txt.gz", None)) == [{"source": text, "target": quoted}]
    for name in ("own.jsonl", "own.csv", "own.tsv"):
        assert list(tabular.read(tmp_path / name)) == [{"text": quoted, "label": part}]


@pytest.mark.parametrize(("read", "name", "content", "expected"), GOOD.values(), ids=GOOD)
def test_reads(tmp_path: Path, read: Read, name: str, content: bytes, expected: list[Record]) -> None:
    (tmp_path / name).write_bytes(content)
    assert list(read(tmp_path / name, None)) == expected


@pytest.mark.parametrize(("read", "name", "content", "where", "good", "said"), BAD.values(), ids=BAD)
def test_bad_input(tmp_path: Path, read: Read, name: str, content: bytes, where: str, good: int, said: str) -> None:
    """Refused in one line that names file and line; or noted once, and every other record is read."""
    path = tmp_path / name
    path.write_bytes(content)
    (tmp_path / "labels.txt").write_text("x\ny\n")
    (tmp_path / "target.txt").write_text("x\ny\n\n")
    with pytest.raises(UserError) as error:
        list(read(path, None))
    bad = BadRecords()
    found = list(read(path, bad))
    ((place, problem),) = bad
    assert str(error.value) == f"{place}: {problem}"
    assert "\n" not in str(error.value)
    assert place.endswith(where)
    assert said in problem
    assert len(found) == good


def test_gz_cut_short(tmp_path: Path) -> None:
    """What was unpacked before the cut is read, and the line of the cut is named."""
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(b"text,label\n" + b"".join(b"line %d,a\n" % n for n in range(4000)))[:-2000])
    bad = BadRecords()
    found = list(texts(path, bad))
    ((place, problem),) = bad
    assert 100 < len(found) < 3999
    assert place == f"{path}:{len(found) + 2}"
    assert "damaged or cut short" in problem
    with pytest.raises(UserError, match="cut short"):
        list(texts(path, None))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.tsv: cannot be read: No such file"):
        list(texts(tmp_path / "none.tsv", BadRecords()))


@pytest.mark.parametrize("columns", [{}, {"label": "a"}, {"text": "a", "label": "b", "tags": "c"}, {"txt": "a"}])
def test_columns_of_no_record(tmp_path: Path, columns: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"columns: no kind of task has .*; allowed: text, label; text, labels; "):
        tabular.read(tmp_path / "x.tsv", columns=columns)


def test_fields_and_formats_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of ``key: value`` lines, and a record with a count."""

    def rows(path: Path, columns: Mapping[str, str], bad: BadRecords | None) -> Iterator[tuple[Place, dict[str, str]]]:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            values = dict(part.split(": ") for part in line.split("; "))
            yield Place(str(path), [number]), {field: values[column] for field, column in columns.items()}

    def count(value: object, name: str) -> int:
        if not str(value).isdecimal():
            raise BadRecord(f"{name} is {value!r}; it must be a whole number")
        return int(str(value))

    path = tmp_path / "de.pairs"
    path.write_text("t: a; n: 3\nt: b; n: x\n")
    columns, counted = {"text": "t", "count": "n"}, Fields({"text": fields.text, "count": count})
    with pytest.raises(UserError, match=r"de\.pairs: the name of a table ends in one of \.jsonl, \.csv"):
        list(tabular.read(path, columns=columns, fields=counted))
    monkeypatch.setitem(tabular.READERS, ".pairs", rows)
    bad = BadRecords()
    assert list(tabular.read(path, bad, columns=columns, fields=counted)) == [{"text": "a", "count": 3}]
    assert list(bad) == [(f"{path}:2", "count is 'x'; it must be a whole number")]


def test_real_spans() -> None:
    """Every answer of TyDiQA, XQuAD and MLQA stands at its offset in its context; the reader says so, and we look."""
    count = 0
    for name in ("tydiqa", "xquad", "mlqa"):
        for path in real_data(name).glob("*.json"):
            for record in squad.read(path):
                for text, start in zip(*record["answers"].values(), strict=True):
                    assert record["context"][start:].startswith(text)
                    count += 1
    assert count > 20_000


def test_real_pairs_of_languages() -> None:
    files = sorted(real_data("tatoeba").glob("tatoeba.*-eng.eng"))
    assert len(files) == 20
    for path in files:
        other = path.with_suffix(f".{path.name.split('.')[1].removesuffix('-eng')}")
        assert len(list(parallel.read(path, other))) == len(path.read_bytes().splitlines())


def test_real_conllu() -> None:
    folder = real_data("panx")
    for language in ("de", "en", "es"):
        found = list(conll.read(folder / f"test-{language}.conllu", strict=True))
        assert len(found) == 10_000
