"""What stdout may be: of an encoding without most letters, on a full disk, a pipe that nobody reads."""

import io
import json
import os
import sys
from pathlib import Path
from typing import TextIO

import pytest

from multitune.cli import output
from multitune.cli.app import main


def call(monkeypatch: pytest.MonkeyPatch, stdout: TextIO | None, *words: str) -> int:
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(sys, "argv", ["multitune", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def latin() -> tuple[io.BytesIO, io.TextIOWrapper]:
    written = io.BytesIO()
    return written, io.TextIOWrapper(written, encoding="latin-1")


def test_what_an_encoding_lacks_is_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "отзывы é.csv"
    data.write_text("text,label\na,b\nc,d\n")
    written, stdout = latin()
    assert call(monkeypatch, stdout, "init", str(data)) == 0
    assert rb"\u043e\u0442\u0437\u044b\u0432\u044b " + "é".encode("latin-1") in written.getvalue()


def test_json_stays_json_in_any_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    for stdout in (latin()[1], io.TextIOWrapper(io.BytesIO(), encoding="utf8")):
        monkeypatch.setattr(sys, "stdout", stdout)
        text = output.json_text({"текст": "é\u2028"})
        assert json.loads(text.encode(stdout.encoding).decode("utf-8")) == {"текст": "é\u2028"}
        assert text.isascii() == (stdout.encoding == "latin-1")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w") as stdout:
        assert call(monkeypatch, stdout, "recipes") == 1
    assert capfd.readouterr().err == "multitune: cannot write what was to be printed: No space left on device\n"


def test_a_pipe_that_nobody_reads_is_no_fault(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "w") as stdout:
        assert call(monkeypatch, stdout, "recipes") == 1
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "words", [("schema",), ("recipes", "--json"), ("recipes", "--csv"), ("recipes",)], ids=" ".join
)
def test_what_is_printed_where_stdout_is_closed_goes_nowhere(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert call(monkeypatch, None, *words) == 0
    assert capfd.readouterr() == ("", "")


def test_a_mistake_is_no_result_where_stderr_is_closed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert call(monkeypatch, sys.stdout, "recipes", "nope") == 2
    assert capfd.readouterr() == ("", "")
