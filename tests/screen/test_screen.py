"""The display of what takes long: no name is cut at any width, nothing is drawn in a pipe, notebooks get HTML."""

import gzip
import io
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from multitune.data import lines
from multitune.screen.notebook import Cell
from multitune.screen.stages import expect, opened, reading, shown_on, stage
from multitune.screen.terminal import Terminal
from multitune.screen.words import duration, size

NAMES = ("mixed-seed0", "sequential_reptile-options.inner_steps=1000-learning_rate=0.0001-seed10")


def console(width: int, *, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, legacy_windows=False, color_system=None)


def written(to: Console) -> str:
    assert isinstance(to.file, io.StringIO)
    return to.file.getvalue()


def last_drawing(names: tuple[str, ...], width: int) -> list[str]:
    to = console(width, terminal=True)
    with Terminal(to) as screen:
        for name in names:
            screen.bar(name, 100000).show(50000, "dev accuracy 81.2", "loss 1.250", "12.3/s")
        screen.say("said")
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written(to).replace("\r", "\n"))
    return (names[0] + shown.rpartition(names[0])[2]).splitlines()


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_no_name_is_cut_at_any_width(width: int) -> None:
    lines = last_drawing(NAMES, width)
    assert max(map(len, lines)) <= width
    assert "".join(line.split()[0] for line in lines if line.strip()) == "".join(NAMES)


@pytest.mark.parametrize(
    ("width", "told"),
    [(80, "dev accuracy 81.2 "), (120, "dev accuracy 81.2  loss 1.250  12.3/s")],
)
def test_a_short_name_leaves_room_for_the_score(width: int, told: str) -> None:
    (line, *_) = last_drawing(("sequential_reptile-seed0",), width)
    assert told in line
    assert "50000/100000" in line


def test_what_is_over_at_once_is_not_drawn() -> None:
    to = console(80, terminal=True)
    with shown_on(lambda: Terminal(to)) as screen, stage("reading", 3) as done:
        done(3)
        screen.say("said")
    assert "reading" not in written(to)


def test_a_pipe_gets_lines_alone() -> None:
    to = console(80, terminal=False)
    with shown_on(lambda: Terminal(to)) as screen, stage("reading"):
        assert not screen.moves
        screen.say("a\x1b[2Jline")
    assert written(to) == "a\\x1b[2Jline\n"


class Counted:
    """A screen with one bar, which has what it is told."""

    moves = True

    def __init__(self) -> None:
        self.done, self.total = 0, 0

    def __enter__(self) -> "Counted":
        return self

    def __exit__(self, *_: object) -> None:
        return

    def bar(self, title: str, total: int | None = None, *, brief: bool = False, in_bytes: bool = False) -> "Counted":
        return self

    def advance(self, count: int = 1) -> None:
        self.done += count

    def extend(self, total: int) -> None:
        self.total = total

    def show(self, done: int, *state: str) -> None:
        self.done = done

    def resize(self, total: int) -> None:
        self.done, self.total = 0, total

    def close(self) -> None:
        return

    def say(self, text: str) -> None:
        return


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_files_that_are_read_count_in_bytes(tmp_path: Path, suffix: str) -> None:
    files = [tmp_path / f"{name}.jsonl{suffix}" for name in ("de", "fi")]
    text = b"".join(b"%d\n" % number**3 for number in range(10_000))
    for file in files:
        file.write_bytes(gzip.compress(text) if suffix else text)
    size, screen = files[0].stat().st_size, Counted()
    with shown_on(lambda: screen), reading("reading folder"):
        expect(files)
        assert sum(1 for _ in lines.numbered(files[0])) == 10_000
        assert (screen.done, screen.total) == (size, 2 * size)
        list(lines.numbered(files[1]))
    assert screen.done == screen.total


def test_bytes_are_megabytes_with_the_time_left() -> None:
    to = console(80, terminal=True)
    with Terminal(to) as screen:
        bar = screen.bar("reading folder", in_bytes=True)
        bar.extend(2_500_000)
        for _ in range(10):
            bar.advance(100_000)
            time.sleep(0.02)
        screen.say("")
        time.sleep(0.3)
    assert re.search(r" 1\.0/2\.5 MB +\d+:\d\d", written(to))


def test_a_file_that_nobody_expects_does_not_count(tmp_path: Path) -> None:
    file = tmp_path / "de.jsonl"
    file.write_text("line\n")
    with shown_on(lambda: Terminal(console(80, terminal=True))), reading("reading folder"):
        assert list(lines.numbered(file)) == [(1, "line")]


def test_there_is_one_screen_at_a_time() -> None:
    assert opened() is None
    with stage("nobody watches") as done:
        done(1)
    with shown_on(lambda: Terminal(console(80, terminal=False))) as outer:
        with shown_on(Terminal) as inner:
            assert inner is outer is opened()
        assert opened() is outer
    assert opened() is None


def test_a_notebooks_bar_is_html() -> None:
    pytest.importorskip("IPython")
    with Cell() as cell:
        bar = cell.bar("<b>mtl</b>", 100)
        bar.show(10, "loss 1.250")
        bar.show(20, "loss 1.125")
        html = bar.html()
        assert html.startswith(
            '<div>&lt;b&gt;mtl&lt;/b&gt; <progress value="20" max="100"></progress> 20/100 loss 1.125 '
        )
        assert html.endswith(" left</div>")
        assert cell.bar("loading").html() == "<div>loading <progress></progress></div>"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (42.4, "42 s"), (240, "4 min"), (5900, "98 min"), (9000, "2.5 h")]
)
def test_a_span_of_time_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(("count", "words"), [(340 * 2**20, "340 MiB"), (2.14 * 2**30, "2.1 GiB")])
def test_a_size_in_words(count: float, words: str) -> None:
    assert size(count) == words
