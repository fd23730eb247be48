"""Tables fitted to a terminal: no name and no number is ever cut.

Where a table is too wide, its heads take several lines; then intervals go below their numbers; then columns of cost go,
the last first, and a line names them; what is still too wide goes on in a second table below.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from multitune.cli.sheet import Cell, Column, Sheet
from multitune.errors import printable

GAP = EDGE = 2
"""Blanks between two columns, and before the first."""
PIPED = 240
"""Columns after which text folds where there is no terminal."""
FOLDED = 40
"""The longest word that text which folds keeps in one line."""


@dataclass(frozen=True)
class _Form:
    """A way to draw a table: heads in several lines or in one, intervals below or beside, which columns are shown."""

    tall: bool
    below: bool
    shown: tuple[int, ...]


@dataclass(frozen=True)
class _Drawn:
    """A column as text.

    Attributes:
        column: which.
        head: its lines.
        cells: the lines of each row.
        least: the narrowest that it can be.
        width: what it is, or the widest that it would like to be.
    """

    column: Column
    head: list[str]
    cells: list[list[str]]
    least: int
    width: int


def fitted(sheet: Sheet, width: int | None, rule: str = "─") -> Text:
    """A table as text, no line wider than the terminal if its names let it; no line ends with blanks.

    Args:
        sheet: the table.
        width: columns of the terminal; None where there is none, and lines are as long as they get.
        rule: the character that lines are drawn with.
    """
    forms = list(_forms(sheet))
    form = next((form for form in forms if width is None or _least(_drawn(sheet, form)) <= width), forms[-1])
    parts = _parts(_drawn(sheet, form), sheet.leading, width)
    shown = Text("\n").join(_part(sheet, _filled(part, width or PIPED), rule) for part in parts)
    for note in [*sheet.notes, *_left_out(sheet, form)]:
        shown.append("\n".join(_wrapped(printable(note), width)) + "\n", "dim")
    return shown


def _forms(sheet: Sheet) -> Iterator[_Form]:
    """Ways to draw a table, the widest first."""
    shown = tuple(range(len(sheet.columns)))
    yield _Form(tall=False, below=False, shown=shown)
    yield _Form(tall=True, below=False, shown=shown)
    yield _Form(tall=True, below=True, shown=shown)
    for last in reversed([n for n, column in enumerate(sheet.columns) if column.cost]):
        shown = tuple(n for n in shown if n != last)
        yield _Form(tall=True, below=True, shown=shown)


def _left_out(sheet: Sheet, form: _Form) -> list[str]:
    gone = [column.title for n, column in enumerate(sheet.columns) if n not in form.shown]
    return [f"a wider terminal shows more: {', '.join(gone)}"] if gone else []


def _drawn(sheet: Sheet, form: _Form) -> list[_Drawn]:
    return [_column(sheet.columns[n], [row[n] for row in sheet.rows], form) for n in form.shown]


def _column(column: Column, cells: Sequence[Cell], form: _Form) -> _Drawn:
    rows = [cell.below() if form.below else cell.beside().split("\n") for cell in cells]
    if column.once:
        rows = [own if n == 0 or own != rows[n - 1] else [""] for n, own in enumerate(rows)]
    lines = [line for own in rows for line in own]
    words = [column.title, *lines]
    widest = max(map(cell_len, words))
    if column.folds:
        least = max(min(cell_len(word), FOLDED) for line in words for word in line.split(" "))
        return _Drawn(column, [column.title], rows, least, widest)
    if form.tall:
        widest = max(map(cell_len, [*column.title.split(" "), *lines]))
    return _Drawn(column, _wrapped(column.title, widest), rows, widest, widest)


def _least(drawn: Sequence[_Drawn]) -> int:
    """The narrowest that a table of these columns can be."""
    return EDGE + sum(each.least for each in drawn) + GAP * (len(drawn) - 1)


def _parts(drawn: Sequence[_Drawn], leading: int, width: int | None) -> list[list[_Drawn]]:
    """Columns in as many tables as they need, each of which begins with the leading ones."""
    first = list(drawn[:leading])
    together: list[list[_Drawn]] = []
    for each in drawn[leading:]:
        together = [*together[:-1], [*together[-1], each]] if each.column.beside else [*together, [each]]
    parts = [list(first)]
    for some in together:
        if width is not None and len(parts[-1]) > leading and _least([*parts[-1], *some]) > width:
            parts.append(list(first))
        parts[-1] += some
    return parts


def _filled(drawn: Sequence[_Drawn], width: int) -> list[_Drawn]:
    """The columns with the width that each gets: those that fold share what the others leave, as they need it."""
    wanted = sum(each.width - each.least for each in drawn)
    spare = max(0, min(wanted, width - _least(drawn)))
    widths = [each.least + spare * (each.width - each.least) // max(1, wanted) for each in drawn]
    return [_folded(each, own) if each.column.folds else each for each, own in zip(drawn, widths, strict=True)]


def _folded(drawn: _Drawn, width: int) -> _Drawn:
    cells = [[part for line in own for part in _wrapped(line, width)] for own in drawn.cells]
    return replace(drawn, head=_wrapped(drawn.column.title, width), cells=cells, width=width)


def _part(sheet: Sheet, drawn: Sequence[_Drawn], rule: str) -> Text:
    between = " " * EDGE + rule * (sum(each.width for each in drawn) + GAP * (len(drawn) - 1))
    heads = max(len(each.head) for each in drawn)
    text = Text()
    text.append(_row(drawn, [[""] * (heads - len(each.head)) + each.head for each in drawn]), "bold")
    text.append(f"{between}\n")
    for row in range(len(sheet.rows)):
        if row and row in sheet.breaks:
            text.append(f"{between}\n")
        text.append(_row(drawn, [each.cells[row] for each in drawn]))
    return text


def _row(drawn: Sequence[_Drawn], cells: Sequence[Sequence[str]]) -> str:
    """The lines of a row whose cells have several each."""
    lines = []
    for n in range(max(map(len, cells))):
        texts = [own[n] if n < len(own) else "" for own in cells]
        padded = [_padded(text, each) for text, each in zip(texts, drawn, strict=True)]
        lines.append((" " * EDGE + (" " * GAP).join(padded)).rstrip() + "\n")
    return "".join(lines)


def _padded(text: str, drawn: _Drawn) -> str:
    blanks = " " * (drawn.width - cell_len(text))
    return text + blanks if drawn.column.text else blanks + text


def _wrapped(text: str, width: int | None) -> list[str]:
    """A text in lines of at most so many columns, broken at blanks where it has some."""
    if width is None or cell_len(text) <= width:
        return [text]
    console = Console(file=io.StringIO(), width=width)
    return [line.plain.rstrip() for line in Text(text).wrap(console, width)]
