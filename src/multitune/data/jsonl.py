"""JSON Lines: one object a line, with named keys."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from multitune.data import lines
from multitune.data.bad import BadRecord, BadRecords, report
from multitune.data.corpus import Place
from multitune.errors import kind_of_value


def rows(
    path: str | Path, columns: Mapping[str, str], bad: BadRecords | None = None
) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Yield ``{field: value}`` a line, each with its place. Blank lines are no records.

    Args:
        path: a UTF-8 file, plain or gzipped.
        columns: field -> its key.
        bad: takes the bad lines; None raises at the first.

    Raises:
        UserError: naming file and line: no JSON object, or a key is missing.
    """
    for number, value in _numbered(path, bad):
        lacking = [key for key in columns.values() if key not in value]
        if lacking:
            has = ", ".join(map(repr, value)) or "none"
            problem = f"no key {lacking[0]!r}; the line has {has} (columns: in the recipe names the keys)"
            report(bad, f"{path}:{number}", problem)
        else:
            yield Place(str(path), [number]), {field: value[key] for field, key in columns.items()}


def objects(path: str | Path, bad: BadRecords | None = None) -> Iterator[dict[str, Any]]:
    """Yield each line's object with all of its keys.

    Raises:
        UserError: as ``rows`` does.
    """
    return (value for _, value in _numbered(path, bad))


def keyed_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON from its pairs; raises ``BadRecord`` where a key stands twice, which JSON itself allows."""
    value = dict(pairs)
    if len(value) < len(pairs):
        twice = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise BadRecord(f"key {twice!r} is given twice")
    return value


def _numbered(path: str | Path, bad: BadRecords | None) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file, each with the number of its line."""
    filled = ((number, line) for number, line in lines.numbered(path, bad) if line.strip())
    for count, (number, line) in enumerate(filled):
        value = _object(line)
        if isinstance(value, dict):
            yield number, value
        elif count == 0 and _begins_array(line, value):
            report(
                bad, f"{path}:{number}", "a JSON array; here each line is one JSON object, as jq -c '.[]' writes them"
            )
            return
        else:
            report(bad, f"{path}:{number}", value)


def _begins_array(line: str, problem: str) -> bool:
    """Whether the first line of a file begins, or is, a list of objects."""
    begin = line.lstrip()
    return begin.startswith("[") and (problem.startswith("not JSON") or begin[1:].lstrip().startswith("{"))


def _object(line: str) -> dict[str, Any] | str:
    """The line's object, or what is wrong with it."""
    try:
        value = json.loads(line, object_pairs_hook=keyed_once)
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} (column {error.colno})"
    except RecursionError:
        return "JSON too deeply nested"
    except ValueError as error:  # a key twice, or a number of more digits than Python converts
        return f"not JSON: {error}"
    return value if isinstance(value, dict) else f"{kind_of_value(value)}; a line is one JSON object"
