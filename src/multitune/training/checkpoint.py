"""All that a resume needs, as safetensors and JSON with their hashes; nothing is ever unpickled.

A checkpoint is a folder, named by its gradient count: ``tensors.safetensors``, ``state.json``, and ``B2SUMS`` with the
BLAKE2b hashes of both (``b2sum --check B2SUMS`` checks them, too).
"""

import errno
import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import pydantic
import pydantic.dataclasses
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from multitune.errors import RunError, UserError
from multitune.recipe import Recipe
from multitune.recipe_files import is_text_of
from multitune.results.digests import Digests
from multitune.results.falling import rising
from multitune.storage.atomic import remove, remove_parts, replaced
from multitune.storage.disk import FULL, TOO_LARGE, error_number

FORMAT = 3
KEPT = 2
"""Regular checkpoints kept in a run folder, beside that of the best validation; older ones are removed."""
TENSORS, STATE, SUMS = "tensors.safetensors", "state.json", "B2SUMS"
EARLY = "-early"
NAME = re.compile(rf"\d{{9,}}({EARLY})?")
_DIGESTS = pydantic.TypeAdapter(Digests)


class Damaged(ValueError):
    """What is wrong with a checkpoint."""


@pydantic.dataclasses.dataclass(config=pydantic.ConfigDict(strict=True))
class Progress:
    """Where a run is.

    Attributes:
        gradients: gradient computations spent.
        seconds: seconds trained, over all sessions of the run.
        step_seconds: those of ``seconds`` that steps took.
        probe_seconds: those of ``seconds`` that probes took.
        peak_memory_bytes: the most that was in use when a checkpoint was taken, in any session.
        losses: of the steps since the last training line of metrics.jsonl.
        validated: gradient computations at the newest validation.
        dev: its average, in percent.
        best: the best validation so far (average score, gradient count), where the recipe selects it; else empty.
        peak: the best average of a validation so far, in percent; null before the first.
        since_peak: validations since that one.
        steps: steps of the optimizer that were taken.
        skipped_steps: those that were skipped, since a loss or gradient was not finite.
        skipped_in_a_row: the newest of them.
        loss_scale: what losses are multiplied by in fp16; null in other precisions.
        steps_at_scale: those that were taken since it has changed.
        trained: task -> gradient computations that it had a part in and that became steps.
    """

    gradients: int = 0
    seconds: float = 0.0
    step_seconds: float = 0.0
    probe_seconds: float = 0.0
    peak_memory_bytes: int = 0
    losses: list[float] = pydantic.Field(default_factory=list)
    validated: int = 0
    dev: float = 0.0
    best: dict[str, float] = pydantic.Field(default_factory=dict)
    peak: float | None = None
    since_peak: int = 0
    steps: int = 0
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    loss_scale: float | None = None
    steps_at_scale: int = 0
    trained: dict[str, int] = pydantic.Field(default_factory=dict)

    def judge(self, metric: str, dev: float, *, select_best: bool) -> None:
        """Note the average of a validation of the weights that there are now."""
        height = partial(rising, metric)
        if select_best and (not self.best or height(dev) > height(self.best["average"])):
            self.best = {"average": dev, "gradients": self.gradients}
        risen = self.peak is None or height(dev) > height(self.peak)
        self.peak, self.since_peak = (dev, 0) if risen else (self.peak, self.since_peak + 1)
        self.dev, self.validated = dev, self.gradients


@dataclass
class RunState:
    """A run between two steps.

    Attributes:
        progress: what the run counts.
        recipe: the resolved recipe, as YAML.
        digests: of the records that the run saw.
        log: metrics.jsonl.
        weights: the parameters that train, by name (of a two-loop method, the fast ones).
        update: the method's state: optimizer, task sampler, slow weights, ...
        batches: where each stream of mini-batches is.
    """

    progress: Progress
    recipe: str
    digests: Digests
    log: str
    weights: dict[str, Tensor]
    update: dict[str, Any]
    batches: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Flat:
    """A state as it is written: JSON in which tensors have left their names, and the tensors."""

    name: str
    best: str
    plain: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def bytes(self) -> int:
        """The size of the tensors; the JSON is small beside them."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def flatten(state: RunState, *, early: bool = False) -> Flat:
    """A state ready to write; its tensors are the live ones."""
    tensors: dict[str, Tensor] = {}
    content = {item.name: getattr(state, item.name) for item in fields(state)}
    content |= {"progress": asdict(state.progress), "digests": asdict(state.digests)}
    plain = {name: _plain(value, name, tensors) for name, value in content.items()}
    now = state.progress
    best, name = _name(int(now.best.get("gradients", 0))), _name(now.gradients) + (EARLY if early else "")
    return Flat(name, best, {"format": FORMAT} | plain, tensors)


def write(flat: Flat, folder: Path) -> Path:
    """Write ``folder/<name>``, whole or not at all, then remove what is no longer kept.

    A regular checkpoint is kept while it is among the newest two or the best; an early one (an interrupted run's) until
    the next regular one.

    Raises:
        RunError: the disk has no room for it, or takes no file of its size; those before it stay.
    """
    folder.mkdir(exist_ok=True)  # not its parents: a run folder that is gone must not come back without the rest
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
        if error_number(error) == errno.EFBIG:
            raise RunError(
                f"{folder}: cannot write a checkpoint of {flat.bytes:,} bytes: {TOO_LARGE}, then go on with --resume"
            ) from error
        if error_number(error) not in FULL:
            raise
        raise _no_space(flat, folder, free) from error
    for path in _superseded(folder, folder / flat.name, folder / flat.best):
        remove(path)
    return folder / flat.name


Restore = Callable[[RunState], object]
"""Takes a state over, or raises ``Damaged``."""


def load_newest(folder: Path, recipe: Recipe, restore: Restore) -> tuple[RunState | None, list[str]]:
    """Restore the newest undamaged checkpoint of a folder.

    Args:
        folder: of checkpoints.
        recipe: of the run; keys that an earlier version did not write have their defaults.
        restore: called with one after the other, until it takes one.

    Returns:
        The state, None where there is no checkpoint at all; and what is wrong with newer ones.

    Raises:
        UserError: there are checkpoints, all of them damaged.
    """
    damages: list[str] = []
    for path in reversed(_finished(folder)):
        try:
            state = _load(path, recipe)
            restore(state)
            return state, damages
        except Damaged as damage:
            damages.append(f"{path} is damaged ({damage})")
    if damages:
        raise UserError(f"--resume: {'; '.join(damages)}; no other checkpoint is left; begin anew in another folder")
    return None, damages


def newest_gradients(folder: Path) -> int | None:
    """Gradient computations of the newest checkpoint, damaged or not; None where there is none."""
    finished = _finished(folder)
    return int(finished[-1].name.removesuffix(EARLY)) if finished else None


def newest_digests(folder: Path) -> Digests | None:
    """Hashes of the records that the newest checkpoint's run saw; None where no checkpoint has them undamaged."""
    for path in reversed(_finished(folder)):
        with suppress(Damaged), _damage_explained():
            _check_there(path)
            if f"{_hash(path / STATE)}  {STATE}" in (path / SUMS).read_text(encoding="utf-8").splitlines():
                return _DIGESTS.validate_python(_restored(_plain_state(path)["digests"], {}))
    return None


def clear(folder: Path) -> None:
    """Remove all checkpoints: the run is finished, and nothing is left to resume."""
    for path in _finished(folder):
        remove(path)


def load(folder: Path, gradients: int, recipe: Recipe) -> RunState:
    """The regular checkpoint of so many gradients; raises ``Damaged`` where it is, or is not there."""
    return _load(folder / _name(gradients), recipe)


def _load(path: Path, recipe: Recipe) -> RunState:
    with _damage_explained():
        _check_files(path)
        tensors = load_file(path / TENSORS)
        plain = _plain_state(path)
        content = {name: _restored(value, tensors) for name, value in plain.items()}
        if tensors:
            raise ValueError(f"nothing names the tensor {next(iter(tensors))!r}")
        progress, digests = Progress(**content["progress"]), _DIGESTS.validate_python(content["digests"])
        state = RunState(**content | {"progress": progress, "digests": digests})
    try:
        same = is_text_of(state.recipe, recipe, "its recipe")
    except UserError as error:
        raise Damaged(str(error)) from error
    if not same:
        raise Damaged("it is of another recipe")
    if _name(state.progress.gradients) != path.name.removesuffix(EARLY):
        raise Damaged(f"it is of {state.progress.gradients} gradients")
    return state


@contextmanager
def _damage_explained() -> Iterator[None]:
    """Inside, whatever a checkpoint's files can do becomes ``Damaged``."""
    try:
        yield
    except Damaged:
        raise
    except OSError as error:
        raise Damaged(f"it cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, SafetensorError) as error:
        raise Damaged(f"{STATE} or {TENSORS} is not what this version writes: {str(error).splitlines()[0]}") from error


def _plain_state(path: Path) -> dict[str, Any]:
    """What state.json holds; a wrong one raises whatever it likes."""
    plain: dict[str, Any] = json.loads((path / STATE).read_text(encoding="utf-8"))
    if plain.pop("format") != FORMAT:
        raise ValueError("another format")
    return plain


def _check_files(path: Path) -> None:
    """The three files, no links, with the hashes that were written."""
    _check_there(path)
    written, now = ((path / SUMS).read_bytes(), _sums(path).encode())
    if written != now:
        same = [line.split()[1].decode() for line in now.splitlines() if line in written.splitlines()]
        raise Damaged(f"the hash of {next((name for name in (TENSORS, STATE) if name not in same), SUMS)} differs")


def _check_there(path: Path) -> None:
    if path.is_symlink():
        raise Damaged("it is a link")
    there = {entry.name for entry in path.iterdir() if entry.is_file() and not entry.is_symlink()}
    if missing := sorted({TENSORS, STATE, SUMS} - there):
        raise Damaged(f"no {missing[0]}")


def _sums(path: Path) -> str:
    """What ``b2sum tensors.safetensors state.json`` prints in that folder."""
    return "".join(f"{_hash(path / name)}  {name}\n" for name in (TENSORS, STATE))


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _name(gradients: int) -> str:
    return f"{gradients:09d}"


def _finished(folder: Path) -> list[Path]:
    """The checkpoints that are whole, in the order of their writing."""
    checkpoints = (path for path in folder.glob("[0-9]*") if NAME.fullmatch(path.name))
    return sorted(checkpoints, key=lambda path: (int(path.name.removesuffix(EARLY)), path.name))


def _superseded(folder: Path, written: Path, best: Path) -> list[Path]:
    """What is older than the newest, and what seems newer: damaged ones, which the run has passed over."""
    finished = _finished(folder)
    regular = [path for path in finished[: finished.index(written) + 1] if not path.name.endswith(EARLY)]
    kept = {*regular[-KEPT:], best, written}
    return [path for path in finished if path not in kept]


def _no_space(flat: Flat, folder: Path, free: int) -> RunError:
    return RunError(
        f"{folder}: no space for a checkpoint of {flat.bytes:,} bytes, {free:,} are free; earlier ones are intact; "
        f"make room on that disk, then go on with --resume"
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
