"""Tables on stdout: for a person, or with ``--json`` or ``--csv`` for a program, and then nothing else."""

import codecs
import csv
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rich.console import Console

from multitune.cli.layout import fitted
from multitune.cli.sheet import Sheet
from multitune.errors import UserError, printable
from multitune.screen.stages import opened, shown_on, stage
from multitune.screen.terminal import Terminal

DIGITS = 6
"""Of the probabilities that predictions are printed with."""


def show(sheets: Sequence[Sheet], *, as_json: bool, as_csv: bool) -> None:
    """Print tables on stdout."""
    if as_json:
        print(json_text({sheet.name: _content(sheet) for sheet in sheets}, indent=2))
    elif as_csv:
        _print_csv(sheets)
    else:
        _print_text(sheets)


def json_text(content: object, *, indent: int | None = None) -> str:
    """JSON in which what a terminal would obey, and what some readers take for a line end, is escaped.

    So is all that is not ASCII where stdout is not of UTF-8: JSON has no other encoding.
    """
    is_utf_8 = codecs.lookup(sys.stdout.encoding or "utf-8").name == "utf-8"
    text = json.dumps(content, indent=indent, ensure_ascii=not is_utf_8)
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def rounded(value: Any) -> Any:
    """The value with its floats to ``DIGITS`` digits: models compute them to no more."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return list(map(rounded, value))
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def check(*, as_json: bool, as_csv: bool) -> None:
    """Raise UserError where both are asked for: before anything is run."""
    if as_json and as_csv:
        raise UserError("--json: cannot stand beside --csv; name one of the two")


def set_verbosity(*, verbose: bool, quiet: bool) -> None:
    """Let multitune's logging tell of more than warnings, where that is asked for.

    Raises:
        UserError: as ``check`` does.
    """
    if verbose and quiet:
        raise UserError("--verbose: cannot stand beside --quiet; name one of the two")
    if verbose:
        logging.getLogger("multitune").setLevel(logging.INFO)


def _content(sheet: Sheet) -> dict[str, object]:
    return {"rows": sheet.records(), "notes": sheet.notes}


def _print_csv(sheets: Sequence[Sheet]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for number, sheet in enumerate(sheets):
        if number:
            print()
        rows = sheet.records()
        names = dict.fromkeys(name for row in rows for name in row) or [column.key for column in sheet.columns]
        writer.writerow(names)
        writer.writerows([row.get(name) for name in names] for row in rows)  # that of a failed run has fewer


def _print_text(sheets: Sequence[Sheet]) -> None:
    """A terminal's width decides how; without one only COLUMNS does."""
    console = Console(highlight=False, markup=False)
    width = console.width if console.is_terminal or "COLUMNS" in os.environ else None
    rule = "-" if console.options.ascii_only else "─"
    for number, sheet in enumerate(sheets):
        if number:
            console.print()
        console.print(fitted(sheet, width, rule), soft_wrap=True, end="")


@contextmanager
def watched(*, quiet: bool = False) -> Iterator[None]:
    """Inside, stages are shown on stderr; of several processes that share a run, by the first one alone."""
    if quiet or os.environ.get("RANK", "0") != "0":
        yield
        return
    with shown_on(Terminal):
        yield


def reading() -> AbstractContextManager[object]:
    """A stage in which a recipe is read, and what checks it is imported."""
    return stage("reading the recipe")


def importing() -> AbstractContextManager[object]:
    """A stage in which torch and transformers are imported, which takes seconds."""
    return stage("loading PyTorch")


def announce(text: str) -> None:
    """Tell a person at a terminal what begins now; where nobody watches, what comes of it is enough."""
    if (screen := opened()) is not None and screen.moves:
        screen.say(text)


def say(text: str) -> None:
    """Tell a person something on stderr, above the bars that may be there."""
    if (screen := opened()) is not None:
        screen.say(text)
        return
    Console(stderr=True, highlight=False, markup=False).print(printable(text), soft_wrap=True)


def say_lines(text: str) -> None:
    """Tell a person several lines on stderr."""
    for line in text.splitlines():
        say(line)
