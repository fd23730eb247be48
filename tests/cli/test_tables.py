"""Tables for the terminal: what comes from files is shown as text."""

from io import StringIO

import pytest
from rich.console import Console

from multitune.cli import tables
from multitune.data.corpus import Corpus
from multitune.data.records.balance import balance
from multitune.tasks import TASKS

HOSTILE = {
    "colour": "\x1b[31mred",
    "title": "\x1b]0;owned\x07",
    "C1": "\x9b31mred",
    "markup": "[bold]b[/bold]",
    "link": "[link=https://example.com]x[/link]",
    "line feed": "a\nb",
}


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_labels_and_names_are_shown_as_text(name: str) -> None:
    rows = [{"text": "a", "label": name}]
    corpus = Corpus("classification", (name,), {name: rows}, {name: rows}, {name: rows}, skipped={name: 1})
    console = Console(file=StringIO(), width=200, force_terminal=True, color_system=None)
    labels = tables.labels(balance(corpus, TASKS))
    for table in (tables.counts(corpus, {}, 128), labels, tables.scores({name: {"f1": 1.0}})):
        console.print(table)
    file = console.file
    assert isinstance(file, StringIO)
    shown = file.getvalue()
    assert not {"\x1b", "\x07", "\x9b"} & set(shown)
    expected = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    assert shown.count(expected) >= 4
