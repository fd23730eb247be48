"""JSON Lines: one object a line, with named keys."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from multitune.data import lines
from multitune.data.bad import BadRecords, report
from multitune.data.records.corpus import Place


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
    for number, line in lines.numbered(path, bad):
        if not line.strip():
            continue
        found = _object(line)
        lacking = [] if isinstance(found, str) else [key for key in columns.values() if key not in found]
        if isinstance(found, str):
            report(bad, f"{path}:{number}", found)
        elif lacking:
            report(bad, f"{path}:{number}", f"no key {lacking[0]!r}; the line has {', '.join(map(repr, found))}")
        else:
            yield Place(str(path), [number]), {field: found[key] for field, key in columns.items()}


def _object(line: str) -> dict[str, Any] | str:
    """The line's object, or what is wrong with it."""
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} (column {error.colno})"
    except RecursionError:
        return "JSON too deeply nested"
    except ValueError as error:  # a number of more digits than Python converts
        return f"not JSON: {error}"
    return found if isinstance(found, dict) else f"a {type(found).__name__}; a line is one JSON object"
