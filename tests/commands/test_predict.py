"""New texts: what a file of them may be, which model answers, and what is told in one line."""

import datetime
import gzip
import json
import sys
from collections.abc import Callable
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import multitune as mt
from builders import recipe
from multitune.cli.app import main
from multitune.commands.predict import _learnt, _record, read_texts
from multitune.data.lines import LONGEST
from multitune.errors import UserError
from multitune.results.predictions import Prediction, prediction_line
from multitune.tasks import Translation


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_panx: Path) -> Path:
    """One model that tags."""
    out = tmp_path_factory.mktemp("predict") / "run"
    mt.train(recipe(tiny_model, tiny_panx, budget=4, dev_limit=1), out)
    return out


FILES = {
    "lines": (b"ana roma\nbela oslo\n", ["ana roma", "bela oslo"]),
    "no line end": (b"ana", ["ana"]),
    "Windows": (b"\xef\xbb\xbfana\r\nbela\r\n", ["ana", "bela"]),
    "a separator that is no line end": ("a\u2028b\n".encode(), ["a\u2028b"]),
    "objects": (b'{"text": "a"}\n{"text": "b"}\n', [{"text": "a"}, {"text": "b"}]),
    "nothing": (b"", []),
}


@pytest.mark.parametrize(("content", "texts"), FILES.values(), ids=FILES)
def test_files_of_texts(tmp_path: Path, content: bytes, texts: list[str]) -> None:
    (tmp_path / "new.txt").write_bytes(content)
    assert read_texts(tmp_path / "new.txt") == texts


def parquet(folder: Path) -> Path:
    day = datetime.date(2026, 1, 2)
    pq.write_table(pa.table({"text": ["a", "b"], "day": [day, None], "n": [1, 2]}), folder / "new.parquet")
    return folder / "new.parquet"


def csv(folder: Path) -> Path:
    (folder / "new.csv.gz").write_bytes(gzip.compress(b'n,text\n1,"a, b\nc"\n2,d\n'))
    return folder / "new.csv.gz"


TABLES: dict[str, tuple[Callable[[Path], Path], list[dict[str, object]]]] = {
    "CSV": (csv, [{"n": "1", "text": "a, b\nc"}, {"n": "2", "text": "d"}]),
    "Parquet": (parquet, [{"text": "a", "day": "2026-01-02", "n": 1}, {"text": "b", "day": None, "n": 2}]),
}


@pytest.mark.parametrize(("write", "rows"), TABLES.values(), ids=TABLES)
def test_tables_are_rows(tmp_path: Path, write: Callable[[Path], Path], rows: list[dict[str, object]]) -> None:
    assert read_texts(write(tmp_path)) == rows


BAD = {
    "a blank line": (b"a\n\nb\n", "new.txt:2: a blank line"),
    "Latin-1": (b"a\n\xe9\n", "new.txt:2: not UTF-8"),
    "a line without an end": (b"a\n" + b"x" * (LONGEST + 1), "new.txt:2: a line of more than 4194304 bytes"),
    "a line among objects": (b'{"text": "a"}\nb\n', "new.txt:2: not valid JSON"),
}


@pytest.mark.parametrize(("content", "said"), BAD.values(), ids=BAD)
def test_bad_files_of_texts(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "new.txt").write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_texts(tmp_path / "new.txt")


NOT_READ = {"a.json": b'[{"text": "a"}]', "a.xlsx": b"PK\x03\x04", "a.csv.bz2": b"BZh9", "a.tab": b"text\tx\na\t1\n"}


@pytest.mark.parametrize(("name", "content"), NOT_READ.items(), ids=NOT_READ)
def test_files_that_are_no_lines(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: holds neither lines of text nor a table that is read; \w+ "):
        read_texts(tmp_path / name)


@pytest.mark.parametrize("name", ["new.conll", "new.conllu", "new.conll.gz"])
def test_words_a_line_are_not_taken_for_texts(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("Ulm B-LOC\nlacht O\n")
    with pytest.raises(UserError, match=rf"{name}: has a word a line; predict reads a sentence a line"):
        read_texts(tmp_path / name)


def test_json_lines_by_another_name(tmp_path: Path) -> None:
    for name in ("a.ndjson", "a.json", "a.txt"):
        (tmp_path / name).write_text('{"text": "a"}\n')
        assert read_texts(tmp_path / name) == [{"text": "a"}]


def test_devices_are_not_read() -> None:
    with pytest.raises(UserError, match="/dev/zero: is not a regular file"):
        read_texts(Path("/dev/zero"))


def test_the_command_reads_lines_and_writes_objects(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new.txt").write_text("ana bela sees roma\nivo\n")
    for words in (["new.txt"], ["-"], []):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["multitune", "predict", str(run), *words])
        monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO((tmp_path / "new.txt").read_bytes())))
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [row["tokens"] for row in rows] == ["ana bela sees roma", "ivo"]
        assert [(len(row["prediction"]), len(row["scores"])) for row in rows] == [(4, 4), (1, 1)]


def test_numbers_of_ones_own_are_printed_as_they_are(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new.jsonl").write_text('{"tokens": ["ana"], "price": 1234567.25}\n')
    monkeypatch.setattr(sys, "argv", ["multitune", "predict", str(run), str(tmp_path / "new.jsonl")])
    with pytest.raises(SystemExit):
        main()
    assert json.loads(capsys.readouterr().out)["price"] == 1234567.25


def test_other_keys_come_back(run: Path) -> None:
    (found,) = mt.predict(run, [{"id": 7, "tokens": ["ana", "roma"], "tags": "unknown"}])
    assert (found["id"], found["tags"], len(found["prediction"])) == (7, "unknown", 2)
    assert list(mt.predict(run, [])) == []


MISTAKES = {
    "no field": ([{"text": "a"}], {}, "text 1: has no 'tokens'"),
    "another type": ([{"tokens": ["a"]}, {"tokens": 7}], {}, "text 2: tokens is a whole number"),
    "a file": (["a", " "], {"source": "new.txt"}, r"new.txt:2: tokens\[0\] is blank"),
    "a prediction already": (
        [{"tokens": ["a"]}, {"tokens": ["a"], "scores": 3}],
        {},
        "text 2: has 'scores', which the",
    ),
    "a language": (["a"], {"language": "aa"}, "one model for all languages; leave it out"),
}


@pytest.mark.parametrize(("texts", "keys", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_told_before_anything_is_predicted(
    run: Path, texts: list[object], keys: dict[str, str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        mt.predict(run, texts, **keys)  # type: ignore[arg-type]


def test_a_model_for_each_language_is_named(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    with pytest.raises(UserError, match="holds no finished run"):
        mt.predict(tmp_path, ["ana"])
    mt.train(recipe(tiny_model, tiny_panx, "stl", budget=4, dev_limit=1), tmp_path / "run")
    for language, said in ((None, "a model for each of aa, bb; name one"), ("cc", "unknown model 'cc'")):
        with pytest.raises(UserError, match=said):
            mt.predict(tmp_path / "run", ["ana"], language=language)
    (found,) = mt.predict(tmp_path / "run", ["ana"], language="aa")
    assert len(found["prediction"]) == 1


def test_a_model_of_pairs_is_asked_about_pairs(tmp_path: Path, tiny_model: Path) -> None:
    rows = [{"premise": f"ana {n}", "hypothesis": "roma", "label": "ab"[n % 2]} for n in range(60)]
    (tmp_path / "de.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"text": "premise", "text_pair": "hypothesis", "label": "label"}
    own = recipe(tiny_model, tmp_path, budget=1, data="folder", columns=columns)
    mt.train(own, tmp_path / "run")
    with pytest.raises(UserError, match="text 2: has no 'text_pair', which the model was trained with"):
        mt.predict(tmp_path / "run", [{"text": "a", "text_pair": "b"}, {"premise": "a"}])
    assert [row["prediction"] in ("a", "b") for row in mt.predict(tmp_path / "run", rows[:2])] == [True, True]


def test_a_translation_is_into_the_language_that_the_model_learnt(tmp_path: Path) -> None:
    task = Translation(())

    def asked(row: dict[str, str], *targets: str) -> dict[str, object]:
        texts = [{"source": "a", "target": "b", "target_language": code} for code in targets]
        lines = [prediction_line(Prediction("xx", text, "b", [])) for text in texts]
        (tmp_path / "predictions.jsonl").write_text("".join(lines))
        return _record(row, task, {}, _learnt(tmp_path, task, None), "text 1")

    assert asked({"source": "c"}, "de", "de")["target_language"] == "de"
    assert asked({"source": "c", "target_language": "fi"}, "de", "fr")["target_language"] == "fi"
    with pytest.raises(UserError, match="text 1: has no 'target_language'; the model translates into de, fr"):
        asked({"source": "c"}, "fr", "de")
    (tmp_path / "predictions.jsonl").unlink()
    assert _learnt(tmp_path, task, None) == {}
