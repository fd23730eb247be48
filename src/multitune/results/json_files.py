"""The JSON files of a run folder: typed values in the program, strict JSON with a ``schema`` number on disk."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import msgspec

from multitune.errors import UserError
from multitune.storage.atomic import write_json

Content = TypeVar("Content")


@dataclass(frozen=True)
class JsonFile:
    """A file that holds one JSON object; a subclass has its keys as attributes."""

    NAME: ClassVar[str]
    SCHEMA: ClassVar[int]
    """Rises when a key goes or changes its meaning."""

    def write(self, folder: Path) -> None:
        """Write the file into a folder, whole or not at all.

        Raises:
            ValueError: a number is not finite.
        """
        write_json(folder / self.NAME, {"schema": self.SCHEMA} | plain(self))

    @classmethod
    def read(cls, folder: str | Path) -> Self:
        """Read the file of a folder.

        Raises:
            UserError: there is none, or it is damaged or of another schema.
        """
        path = Path(folder) / cls.NAME
        return typed(read_object(path), cls, cls.SCHEMA, str(path))


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises:
        UserError: no such file, or one that holds something else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    return parsed(content, str(path))


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each line of a file is (``path:number``), and the JSON object that it holds.

    Raises:
        UserError: no such file, or a line that is no object.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield f"{path}:{number}", parsed(line, f"{path}:{number}")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def parsed(text: bytes, where: str) -> dict[str, Any]:
    """The object in a text of strict JSON; ``where`` begins the message of an error."""
    try:
        content = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{where}: an object of JSON belongs here, not {text.decode().strip()[:40]!r}")
    return content


def typed(content: dict[str, Any], kind: type[Content], schema: int, where: str) -> Content:
    """A JSON object as a value of the program; keys that it does not know are passed over.

    Args:
        content: what a file or a line of it holds; without a ``schema``, as version 0.1.0 wrote it, it is of schema 1.
        kind: the dataclass.
        schema: what the content's has to be.
        where: begins the message of an error.

    Raises:
        UserError: another schema, or a key that is missing or of another type.
    """
    if content.get("schema", 1) != schema:
        raise UserError(
            f"{where}: has schema {content['schema']!r}; this version of multitune reads schema {schema}: use the one "
            f"that wrote it"
        )
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).replace("`", "").partition(" - at $.")
        said = f"{place}: {problem}" if place else problem
        raise UserError(f"{where}: is damaged or was not written by multitune: {said}") from error


def plain(value: object) -> dict[str, Any]:
    """A dataclass as the JSON object that ``typed`` makes it of."""
    content: dict[str, Any] = msgspec.to_builtins(value, enc_hook=_number)
    return content


def as_line(content: dict[str, Any]) -> str:
    """A line of a file with one JSON object a line; a number that is not finite becomes null."""
    encoded = msgspec.json.encode(content, enc_hook=_number)
    return msgspec.json.format(encoded, indent=0).decode() + "\n"


def finite(value: float) -> float | None:
    """The number, or None where it is NaN or infinite, which strict JSON cannot hold."""
    return value if math.isfinite(value) else None


def _number(value: object) -> float:
    """A NumPy float as a plain one."""
    if isinstance(value, float):
        return float(value)
    raise NotImplementedError
