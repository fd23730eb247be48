"""How the source hangs together, in figures: rooms, layers, arrows, and the files that a step and a record pass.

A room is a module or a package at the top of the package; an arrow goes from a room to one that it imports.

What a step of Sequential Reptile and a record pass is counted with ``sys.setprofile`` in runs of a tiny model, which
is made on the spot: a step is what happens between two draws of a mini-batch, of those steps the one that passes the
fewest files (nothing is logged, validated or saved); a record is read, tokenised, predicted, scored and written to
predictions.jsonl. A step passes a file when one of its functions is called; records pass those of whose functions one
is called more often when there are more records, in two runs. What is done once for a corpus (checks of all labels, the
cache, locks) is not on their way; "about a corpus" counts that, too.

    python bench/structure.py [--list]
"""

import argparse
import ast
import logging
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import combinations
from pathlib import Path
from types import FrameType
from typing import Any

from transformers.utils import logging as transformers_logging

import multitune
from small_run import make_data, make_model

SOURCE = Path(multitune.__file__).parent
NAME = SOURCE.name
RECORD = ("load_corpus", "Encoded.of", "evaluate", "write_predictions")
"""The functions inside which a record is on its way."""

Arrows = dict[str, set[str]]
"""Room -> the rooms that it imports."""


def rooms() -> list[str]:
    """The modules and packages at the top, ``__init__`` and ``__main__`` among them."""
    found = [path for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    return sorted(path.stem for path in found)


def arrows() -> Arrows:
    """What each room imports, wherever in its files it does so."""
    found: Arrows = {room: set() for room in rooms()}
    for room in found:
        path = SOURCE / room
        for file in path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]:
            found[room] |= {other for other in _imported(file) if other in found and other != room}
    return found


def _imported(file: Path) -> Iterator[str]:
    """The rooms in a file's import statements."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name}" for name in names]
        yield from (name.split(".")[1] for name in names if name.startswith(f"{NAME}."))


def running_back(graph: Arrows) -> list[tuple[str, str]]:
    """The fewest arrows without which no room is reached from itself."""
    circular = [(room, other) for room, others in graph.items() for other in others if room in _reached(graph, other)]
    for count in range(len(circular) + 1):
        for left_out in combinations(circular, count):
            if not any(room in _reached(_without(graph, left_out), other) for room, other in circular):
                return list(left_out)
    raise AssertionError("a graph without its circular arrows has no circle")


def _reached(graph: Arrows, room: str) -> set[str]:
    found, left = set[str](), [room]
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            left += graph[one]
    return found


def _without(graph: Arrows, left_out: Iterable[tuple[str, str]]) -> Arrows:
    gone = set(left_out)
    return {room: {other for other in others if (room, other) not in gone} for room, others in graph.items()}


def layers(graph: Arrows) -> list[list[str]]:
    """The rooms by the longest way down from them, the lowest first; of a graph without circles."""

    @cache
    def height(room: str) -> int:
        return max((1 + height(other) for other in graph[room]), default=0)

    highest = max(map(height, graph))
    return [[room for room in graph if height(room) == level] for level in range(highest + 1)]


class Passed:
    """Takes the calls of a run, for ``sys.setprofile``.

    Attributes:
        steps: the files that each training step has passed.
        calls: calls of each function (file, name) while records are on their way from file to score.
    """

    def __init__(self) -> None:
        self.steps: list[set[str]] = []
        self.calls: Counter[tuple[str, str]] = Counter()
        self._step: set[str] | None = None
        self._within = 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event not in ("call", "return") or not code.co_filename.startswith(f"{SOURCE}{os.sep}"):
            return
        if code.co_qualname in RECORD:
            self._within += 1 if event == "call" else -1
        if event == "return" or code.co_name == "<module>":
            return
        if code.co_name == "next" and Path(code.co_filename).name == "batching.py":
            self.steps += [] if self._step is None else [self._step]
            self._step = set()
        file = str(Path(code.co_filename).relative_to(SOURCE))
        if self._step is not None:
            self._step.add(file)
        if self._within:
            self.calls[file, code.co_qualname] += 1


def passed(folder: Path, size: int) -> Passed:
    """Train and score a tiny model in a new folder, with so many records a language, and see which files are passed."""
    folder.mkdir()
    train, recipe = multitune.train, multitune.Recipe  # imported here: what runs at import is passed by nothing
    make_model(folder / "model", 16, 32)
    make_data(folder / "data", ("aa", "bb"), size, size // 4)
    keys: dict[str, Any] = {
        "model": str(folder / "model"),
        "data": "folder",
        "path": str(folder / "data"),
        "method": "sequential_reptile",
        "options": {"inner_steps": 5},
        "budget": 400,
        "save_model": False,
        "probe_every": None,
    }
    found = Passed()
    sys.setprofile(found)
    try:
        train(recipe(**keys), folder / "run")
    finally:
        sys.setprofile(None)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="name the rooms of each layer, and the files")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    graph = arrows()
    back = running_back(graph)
    stacked = layers(_without(graph, back))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        transformers_logging.disable_progress_bar()
        few, many = (passed(Path(folder) / str(size), size) for size in (32, 128))
    step = min(few.steps, key=len)
    record = {file for (file, name), count in many.calls.items() if count > few.calls[file, name]}
    modules = sum((SOURCE / f"{room}.py").exists() for room in graph)
    print(f"at the top: {modules} modules, {len(graph) - modules} packages")
    print(f"layers: {len(stacked)}")
    print(f"arrows between rooms: {sum(map(len, graph.values()))}, of which {len(back)} run back")
    print(f"files that a step of Sequential Reptile passes: {len(step)}")
    print(f"files that a record passes from file to score: {len(record)}")
    print(f"files about a corpus from file to score: {len({file for file, _ in few.calls})}")
    if options.list:
        show({f"layer {height}": level for height, level in reversed(list(enumerate(stacked, 1)))})
        show({"runs back": [f"{room} -> {other}" for room, other in back], "step": step, "record": record})


def show(named: Mapping[str, Iterable[str]]) -> None:
    for name, entries in named.items():
        print(f"{name}: {', '.join(sorted(entries))}")


if __name__ == "__main__":
    main()
