"""Images: a folder or a zip file with a folder of image files for each label, and arrays in an npz file.

Zip files are read in place: nothing is extracted. Every image becomes a uint8 array, grey ([height, width]) where the
file is grey or black and white, else RGB ([height, width, 3]).
"""

import importlib.util
import io
import os
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from multitune.data import fields
from multitune.data.bad import BadRecord, BadRecords, parsed, records, report
from multitune.data.corpus import Place, Placed, Record
from multitune.errors import UserError, is_utf8
from multitune.screen.stages import passed

LARGEST = 64 * 2**20
"""Bytes of an image file, unpacked."""
LARGEST_ARRAYS = 4 * 2**30
"""Bytes of an npz file's arrays, unpacked."""
ARRAYS = {f"{name}.npy": name for name in ("x", "y", "test")}
"""Members of an npz file -> the array in each."""
CHANNELS = (1, 3)
"""How many an array of an npz file may have; image files of other modes are converted."""
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "PPM", "TIFF", "WEBP")
"""Formats that image files may have. Pillow knows others, among them EPS, which it hands to Ghostscript to run."""
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    tokenize.TokenError,
    *(EOFError, ValueError, LookupError, OverflowError, MemoryError, RuntimeError, SyntaxError, TypeError),
)
"""What zipfile, numpy and Pillow raise for files that are damaged, encrypted, or say of themselves what is not so."""

SHORTER = 256
"""Points of the shorter side that are kept of the Hub's photographs: all are held in memory."""

Raw = tuple[str | None, Callable[[], bytes]]
"""An image's label, and how to get its file's content."""


def read(path: str | Path, bad: BadRecords | None = None) -> Iterator[Record]:
    """Yield ``{"image", "label"}`` an image; the label is the path of the image's folder below what all share.

    Args:
        path: a folder, a ``.zip`` file, or an ``.npz`` file with ``x`` (uint8, [images, height, width] or [images,
            height, width, 1 or 3 channels]), ``y`` (whole numbers, [images]) and perhaps ``test`` (truth values,
            [images]); records then have ``"test"`` too.
        bad: takes the bad images; None raises at the first.

    Raises:
        UserError: an image that does not decode, lies in no folder, or whose path leads out of the folder or zip; a
            damaged zip; an npz with other arrays or with pickled objects; Pillow is missing.
    """
    return records(placed(path, bad))


def placed(path: str | Path, bad: BadRecords | None = None) -> Iterator[Placed]:
    """Yield what ``read`` does, each with its place: the image's file, or the npz and the row (from 0)."""
    path = Path(path)
    if path.suffix == ".npz":
        return _array_rows(path, bad)
    if path.suffix != ".zip" and not path.is_dir():
        raise UserError(f"{path}: is not a folder, a zip or an npz file of images")
    require()
    return parsed(_archived(path, bad) if path.suffix == ".zip" else _in_folder(path), _decoded, bad)


def _in_folder(root: Path) -> Iterator[tuple[Place, Raw]]:
    inside = root.resolve()
    files, links = _below(root)
    names = [PurePosixPath(file.relative_to(root)) for file in files]
    for file, label in zip(files, _labels(names), strict=True):
        if not _is_hidden(PurePosixPath(file.relative_to(root))):
            yield Place(str(file)), (label, _read_within(file, inside))
    for link in links:
        if not _is_hidden(PurePosixPath(link.relative_to(root))):
            yield Place(str(link)), (link.name, _refuse_link)


def _below(root: Path) -> tuple[list[Path], list[Path]]:
    """The files below a folder, and the links to folders, which are not followed; sorted.

    Raises:
        UserError: a folder that the system does not let be read: its images would be missing, and nobody would know.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from error

    files, links = [], []
    for folder, folders, own in os.walk(root, onerror=refuse):
        files += [Path(folder, name) for name in own]
        links += [path for name in folders if (path := Path(folder, name)).is_symlink()]
    return sorted(files), sorted(links)


def _refuse_link() -> bytes:
    raise BadRecord("is a link to a folder, and links are not followed; put its images there")


def _read_within(file: Path, inside: Path) -> Callable[[], bytes]:
    def content() -> bytes:
        if not file.resolve().is_relative_to(inside):
            raise BadRecord("is a link that leads out of the folder")
        if not file.is_file():
            raise BadRecord("is not a regular file")
        _check_size(file.stat().st_size)
        return file.read_bytes()

    return content


def _archived(path: Path, bad: BadRecords | None) -> Iterator[tuple[Place, Raw]]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = sorted((m for m in archive.infolist() if not m.is_dir()), key=lambda member: member.filename)
            labels = _labels([PurePosixPath(member.filename) for member in members])
            for member, label in zip(members, labels, strict=True):
                passed(path, member.compress_size)
                if not _is_hidden(PurePosixPath(member.filename)):
                    yield Place(f"{path}/{member.filename}"), (label, _member_of(archive, member))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except DAMAGED as error:
        report(bad, str(path), f"the zip file is damaged or cut short ({error})")


def _member_of(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Callable[[], bytes]:
    def content() -> bytes:
        name = PurePosixPath(member.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts:
            raise BadRecord("its path leads out of the zip file")
        _check_size(member.file_size)
        with _unpacked(archive, member) as opened:
            return opened.read(member.file_size)  # no more is unpacked, whatever there is

    return content


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    """A member of a zip file to read from; raises ``BadRecord`` where it may unpack to more than is asked for."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadRecord("is neither stored nor deflated in the zip file")
    return archive.open(member)


def _check_size(size: int) -> None:
    if size > LARGEST:
        raise BadRecord(f"has {size} bytes; an image file may have {LARGEST}")


def _labels(names: Sequence[PurePosixPath]) -> list[str | None]:
    """The folder of each file, below the folders that all visible files share; None for a file right there."""
    folders = [name.parts[:-1] for name in names if not _is_hidden(name)]
    shared = 0
    while folders and all(len(parts) > shared + 1 and parts[shared] == folders[0][shared] for parts in folders):
        shared += 1
    return ["/".join(name.parts[shared:-1]) or None for name in names]


def _is_hidden(name: PurePosixPath) -> bool:
    """What systems leave in folders and zip files: .DS_Store, Thumbs.db, __MACOSX."""
    return name.name == "Thumbs.db" or any(
        part == "__MACOSX" or (part.startswith(".") and part != "..") for part in name.parts
    )


def _decoded(raw: Raw) -> Record:
    label, content = raw
    if label is None:
        raise BadRecord("lies in no folder; each label has a folder of its images")
    if not is_utf8(label):
        raise BadRecord("lies in a folder whose name is not UTF-8; rename it")
    try:
        data = content()
    except BadRecord:
        raise
    except (OSError, *DAMAGED) as error:
        raise BadRecord(f"cannot be read: {error}") from error
    return {"image": _pixels(data), "label": label}


def labelled(values: Mapping[str, Any]) -> Record:
    """A record of an image file's content and its label; a large image is reduced to ``SHORTER``.

    Raises:
        BadRecord: a missing or wrong value, an image that does not decode.
    """
    if not isinstance(values["image"], bytes):
        raise BadRecord("image is missing; it must be the content of an image file")
    require()
    return {"image": _pixels(values["image"], SHORTER), "label": fields.label(values["label"], "label")}


def require() -> None:
    """Raise ``UserError`` where the package is missing that decodes images."""
    if importlib.util.find_spec("PIL") is None:
        raise UserError("data: images needs Pillow; pip install 'multitune[images]'")


def _pixels(data: bytes, shorter: int | None = None) -> NDArray[np.uint8]:
    """Grey [height, width] or RGB [height, width, 3], its shorter side at most so long; raises ``BadRecord``."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pixels may be whole where what is said about them is not
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                decoded = image.convert("L" if image.mode in ("1", "L") else "RGB")
                if shorter is not None and min(decoded.size) > shorter:
                    scale = shorter / min(decoded.size)
                    decoded = decoded.resize((round(decoded.width * scale), round(decoded.height * scale)))
                return np.asarray(decoded, dtype=np.uint8)
    except UnidentifiedImageError as error:
        raise BadRecord(f"does not decode: none of {', '.join(FORMATS)}") from error
    except (OSError, *DAMAGED, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadRecord(f"does not decode: {error}") from error


def _array_rows(path: Path, bad: BadRecords | None) -> Iterator[Placed]:
    arrays = _arrays(path)
    passed(path, path.stat().st_size)
    if isinstance(arrays, str):
        report(bad, str(path), arrays)
        return
    flags = [{"test": bool(flag)} for flag in arrays["test"]] if "test" in arrays else [{}] * len(arrays["x"])
    for row, (image, label, flag) in enumerate(zip(arrays["x"], arrays["y"].tolist(), flags, strict=True)):
        yield Place(f"{path}[{row}]"), {"image": image, "label": str(label), **flag}


def _arrays(path: Path) -> dict[str, NDArray[Any]] | str:
    """The arrays of an npz, or what is wrong with them."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name: member for member in archive.infolist() if (name := ARRAYS.get(member.filename))}
            if sum(member.file_size for member in members.values()) > LARGEST_ARRAYS:
                return f"its arrays have more than {LARGEST_ARRAYS} bytes; divide it into several files"
            arrays = {name: _array(archive, member) for name, member in members.items()}
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except DAMAGED as error:
        return f"the npz file is damaged or holds pickled objects ({(str(error) or repr(error)).splitlines()[0]})"
    if not {"x", "y"} <= set(arrays) or arrays["x"].dtype != np.uint8 or arrays["x"].ndim not in (3, 4):
        return "must have x, uint8 [images, height, width] or [images, height, width, channels], and y [images]"
    if arrays["x"].ndim == 4 and arrays["x"].shape[3] not in CHANNELS:
        return f"x has the shape {list(arrays['x'].shape)}; its last axis is an image's channels, 1 (grey) or 3 (RGB)"
    if not arrays["x"].size:
        return f"x is empty: it has the shape {list(arrays['x'].shape)}"
    if arrays["y"].dtype.kind not in "iu" or any(array.shape != arrays["x"].shape[:1] for array in _flat(arrays)):
        return f"y must hold {len(arrays['x'])} whole numbers, one an image, and test as many truth values"
    if "test" in arrays and not _are_flags(arrays["test"]):
        return f"test must hold truth values, or 0 and 1; it is of {arrays['test'].dtype}, such as {arrays['test'][0]}"
    return arrays


def _are_flags(array: NDArray[Any]) -> bool:
    return array.dtype.kind in "biu" and bool(np.isin(array, (0, 1)).all())


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with _unpacked(archive, member) as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _flat(arrays: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    return [array for name, array in arrays.items() if name != "x"]
