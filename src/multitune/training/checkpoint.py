"""All that a resume needs, as safetensors and JSON with their hashes; nothing is ever unpickled.

A checkpoint is a folder, named by its gradient count (and how often the run went back): ``tensors.safetensors``,
``state.json``, and ``B2SUMS`` with the BLAKE2b hashes of both (``b2sum --check B2SUMS`` checks them, too).
"""

import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pydantic
import pydantic.dataclasses
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from multitune.errors import RunError, UserError
from multitune.storage.atomic import remove, remove_parts, replaced
from multitune.storage.disk import FULL, error_number

FORMAT = 1
KEPT = 2
"""Regular checkpoints kept in a run folder, beside the best one; older ones are removed."""
TENSORS, STATE, SUMS = "tensors.safetensors", "state.json", "B2SUMS"
EARLY = "-early"
NAME = re.compile(rf"(?P<gradients>\d{{9,}})(-back(?P<backs>\d+))?(?P<early>{EARLY})?")


class Damaged(ValueError):
    """What is wrong with a checkpoint."""


@pydantic.dataclasses.dataclass(config=pydantic.ConfigDict(strict=True))
class Progress:
    """Where a run is.

    Attributes:
        gradients: gradient computations spent.
        steps: optimizer steps made.
        step_seconds: seconds that these took.
        seconds: seconds trained, over all sessions of the run.
        probe_seconds: those of ``seconds`` that probes took.
        losses: of the steps since the last training line of metrics.jsonl.
        validated: gradient computations at the newest validation.
        dev: its average, in percent.
        best: the best validation so far (average score, gradient count, ``backs`` then), empty before the first.
        skipped: the newest steps, in a row, whose loss or gradient was not finite.
        backs: how often the run went back to a checkpoint, each time halving its rate.
        stuck: how often since the newest regular checkpoint.
    """

    gradients: int = 0
    steps: int = 0
    step_seconds: float = 0.0
    seconds: float = 0.0
    probe_seconds: float = 0.0
    losses: list[float] = pydantic.Field(default_factory=list)
    validated: int = 0
    dev: float = 0.0
    best: dict[str, float] = pydantic.Field(default_factory=dict)
    skipped: int = 0
    backs: int = 0
    stuck: int = 0

    @property
    def rate(self) -> float:
        """What the recipe's learning rate is multiplied by."""
        return 0.5**self.backs


@dataclass
class RunState:
    """A run between two steps.

    Attributes:
        progress: what the run counts.
        recipe: the resolved recipe, as YAML.
        log: metrics.jsonl.
        weights: the parameters that train, by name (of a two-loop method, the fast ones).
        update: the method's state: optimizer, task sampler, slow weights, ...
        batches: where each stream of mini-batches is.
        best_weights: the shipped weights at the best validation, by name.
    """

    progress: Progress
    recipe: str
    log: str
    weights: dict[str, Tensor]
    update: dict[str, Any]
    batches: dict[str, dict[str, Any]]
    best_weights: dict[str, Tensor]


@dataclass(frozen=True)
class Flat:
    """A state as it is written: JSON in which tensors have left their names, and the tensors."""

    name: str
    best: str
    plain: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def bytes(self) -> int:
        """Of the tensors; the JSON is small beside them."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def flatten(state: RunState, *, early: bool = False) -> Flat:
    """A state ready to write; its tensors are the live ones."""
    tensors: dict[str, Tensor] = {}
    content = {item.name: getattr(state, item.name) for item in fields(state)} | {"progress": asdict(state.progress)}
    plain = {name: _plain(value, name, tensors) for name, value in content.items()}
    now = state.progress
    best = _name(int(now.best.get("gradients", 0)), int(now.best.get("backs", 0)))
    name = _name(now.gradients, now.backs) + (EARLY if early else "")
    return Flat(name, best, {"format": FORMAT} | plain, tensors)


def write(flat: Flat, folder: Path) -> Path:
    """Write ``folder/<name>``, whole or not at all, then remove what is no longer kept.

    A regular checkpoint is kept while it is among the newest two or the best; an early one (an interrupted run's) until
    the next regular one.

    Raises:
        RunError: the disk has no room for it; those before it stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_parts(folder)
    free = shutil.disk_usage(folder).free
    if free < flat.bytes:
        raise _no_space(flat, folder, free)
    try:
        with replaced(folder / flat.name) as beside:
            beside.mkdir()
            save_file(flat.tensors, beside / TENSORS)
            (beside / STATE).write_text(json.dumps(flat.plain, allow_nan=False), encoding="utf-8")
            (beside / SUMS).write_text(_sums(beside), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        if error_number(error) not in FULL:
            raise
        raise _no_space(flat, folder, free) from error
    for path in _superseded(folder, folder / flat.name, folder / flat.best):
        remove(path)
    return folder / flat.name


Restore = Callable[[RunState], object]
"""Takes a state over, or raises ``Damaged``."""


def load_newest(folder: Path, recipe: str, restore: Restore) -> tuple[RunState | None, list[str]]:
    """Restore the newest undamaged checkpoint of a folder.

    Args:
        folder: of checkpoints.
        recipe: what the run's resolved recipe has to be.
        restore: called with one after the other, until it takes one.

    Returns:
        The state, None where there is no checkpoint at all; and what is wrong with newer ones.

    Raises:
        UserError: there are checkpoints, all of them damaged.
    """
    return _first_good(list(reversed(_finished(folder))), recipe, restore)


def load_before(folder: Path, recipe: str, skip: int, restore: Restore) -> RunState:
    """Restore the newest regular checkpoint but ``skip``, or the oldest; as ``load_newest``.

    An early one is passed over: a run that nobody interrupted would not have it.
    """
    line = _lineage(_finished(folder))
    state, _ = _first_good(line[min(skip, len(line) - 1) :], recipe, restore)
    assert state is not None, "one is written before the first step"
    return state


def _first_good(found: Sequence[Path], recipe: str, restore: Restore) -> tuple[RunState | None, list[str]]:
    damages: list[str] = []
    for path in found:
        try:
            state = _load(path, recipe)
            restore(state)
            return state, damages
        except Damaged as damage:
            damages.append(f"{path} is damaged ({damage})")
    if found:
        raise UserError(f"--resume: {'; '.join(damages)}; none is left: name another folder to begin anew")
    return None, damages


def clear(folder: Path) -> None:
    """Remove all checkpoints: the run is finished, and nothing is left to resume."""
    for path in _finished(folder):
        remove(path)


def _load(path: Path, recipe: str) -> RunState:
    try:
        _check_files(path)
        tensors = load_file(path / TENSORS)
        plain = json.loads((path / STATE).read_text(encoding="utf-8"))
        if plain.pop("format") != FORMAT:
            raise ValueError("another format")
        content = {name: _restored(value, tensors) for name, value in plain.items()}
        if tensors:
            raise ValueError(f"nothing names the tensor {next(iter(tensors))!r}")
        state = RunState(**content | {"progress": Progress(**content["progress"])})
    except Damaged:
        raise
    except OSError as error:
        raise Damaged(f"it cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, SafetensorError) as error:
        raise Damaged(f"{STATE} or {TENSORS} is not what this version writes: {str(error).splitlines()[0]}") from error
    if state.recipe != recipe:
        raise Damaged("it is of another recipe")
    if _name(state.progress.gradients, state.progress.backs) != path.name.removesuffix(EARLY):
        raise Damaged(f"it is of {state.progress.gradients} gradients")
    return state


def _check_files(path: Path) -> None:
    """The three files, no links, with the hashes that were written."""
    if path.is_symlink():
        raise Damaged("it is a link")
    there = {entry.name for entry in path.iterdir() if entry.is_file() and not entry.is_symlink()}
    if missing := sorted({TENSORS, STATE, SUMS} - there):
        raise Damaged(f"no {missing[0]}")
    written, now = ((path / SUMS).read_bytes(), _sums(path).encode())
    if written != now:
        same = [line.split()[1].decode() for line in now.splitlines() if line in written.splitlines()]
        raise Damaged(f"the hash of {next((name for name in (TENSORS, STATE) if name not in same), SUMS)} differs")


def _sums(path: Path) -> str:
    """What ``b2sum tensors.safetensors state.json`` prints in that folder."""
    return "".join(f"{_hash(path / name)}  {name}\n" for name in (TENSORS, STATE))


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _name(gradients: int, backs: int) -> str:
    return f"{gradients:09d}" + (f"-back{backs}" if backs else "")


def _finished(folder: Path) -> list[Path]:
    """In the order of their writing: a run that went back begins again at lower gradient counts."""
    found = {path: NAME.fullmatch(path.name) for path in folder.glob("[0-9]*")}
    order = {
        path: (int(name["backs"] or 0), int(name["gradients"]), bool(name["early"]))
        for path, name in found.items()
        if name
    }
    return sorted(order, key=order.__getitem__)


def _lineage(finished: Sequence[Path]) -> list[Path]:
    """The regular checkpoints that the newest one comes from, newest first: not those that the run went back from."""
    line: list[Path] = []
    for path in reversed(finished):
        if not path.name.endswith(EARLY) and (not line or _gradients(path) < _gradients(line[-1])):
            line.append(path)
    return line


def _gradients(path: Path) -> int:
    return int(path.name.partition("-")[0])


def _superseded(folder: Path, written: Path, best: Path) -> list[Path]:
    """What is older than the newest, and what seems newer: damaged ones, which the run has passed over."""
    finished = _finished(folder)
    line = _lineage(finished[: finished.index(written) + 1])
    kept = {*line[:KEPT], best, written}
    return [path for path in finished if path not in kept]


def _no_space(flat: Flat, folder: Path, free: int) -> RunError:
    return RunError(
        f"{folder}: no space for a checkpoint: it needs {flat.bytes:,} bytes, {free:,} are free; those before it are "
        f"untouched: make room on that disk, then go on with --resume"
    )


def _plain(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Strict JSON for a nested state; tensors move to ``tensors`` and leave their name. Keys may be numbers."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"items": [[key, _plain(inner, f"{name}.{key}", tensors)] for key, inner in value.items()]}
    if isinstance(value, list | tuple):
        return {"list": [_plain(inner, f"{name}.{index}", tensors) for index, inner in enumerate(value)]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": str(value)}
    assert value is None or isinstance(value, bool | int | float | str), f"{name} holds a {type(value).__name__}"
    return value


def _restored(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The nested state that ``_plain`` made JSON of; takes the tensors out of ``tensors``."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors.pop(content)
    if kind == "number":
        return float(content)
    if kind == "items":
        return {key: _restored(inner, tensors) for key, inner in content}
    return [_restored(inner, tensors) for inner in content]
