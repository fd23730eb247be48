"""Folders, zip files and npz files of images: what is read, and that nothing outside them ever is."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders import PIXELS, png, real_data, zipped
from multitune.data import images
from multitune.data.bad import BadRecords
from multitune.errors import UserError


def in_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


@pytest.mark.parametrize("store", [lambda path, files: zipped(path / "x.zip", files), in_folder], ids=["zip", "folder"])
@pytest.mark.parametrize("mode", PIXELS)
def test_reads(tmp_path: Path, store: Callable[[Path, dict[str, bytes]], Path], mode: str) -> None:
    """Labels are the folders below those that all share; what a system leaves behind is no image."""
    names = ("all/cats/1.png", "all/dogs/big/2.png", "all/dogs/3.png")
    stored = store(tmp_path, {name: png(mode) for name in names} | {"__MACOSX/._1.png": b"", "all/.DS_Store": b""})
    found = list(images.read(stored))
    assert [record["label"] for record in found] == ["cats", "dogs", "dogs/big"]
    for record in found:
        assert record["image"].dtype == np.uint8
        np.testing.assert_array_equal(record["image"], PIXELS[mode])


def cut_short() -> bytes:
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "png")
    return file.getvalue()[:1000]


def bomb() -> bytes:
    file = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(file, "png")
    return file.getvalue()


BAD = {
    "no image": (b"text", "none of PNG, JPEG"),
    "empty": (b"", "none of PNG"),
    "cut short": (cut_short(), "does not decode: image file is truncated"),
    "far too many pixels": (bomb(), "decompression bomb"),
}


@pytest.mark.parametrize("store", [lambda path, files: zipped(path / "x.zip", files), in_folder], ids=["zip", "folder"])
@pytest.mark.parametrize(("content", "said"), BAD.values(), ids=BAD)
def test_images_that_do_not_decode(
    tmp_path: Path, store: Callable[[Path, dict[str, bytes]], Path], content: bytes, said: str
) -> None:
    stored = store(tmp_path, {"a/1.png": png(), "b/2.png": content})
    bad = BadRecords()
    assert [record["label"] for record in images.read(stored, bad)] == ["a"]
    ((place, problem),) = bad
    assert place == f"{stored}/b/2.png"
    assert said in problem
    with pytest.raises(UserError, match=r"b/2\.png: "):
        list(images.read(stored))


MEMBERS = {
    "../b/x.png": "leads out of the zip file",
    "/etc/b/x.png": "leads out of the zip file",
    "a/../../b/x.png": "leads out of the zip file",
    "x.png": "lies in no folder",
}


@pytest.mark.parametrize(("name", "said"), MEMBERS.items())
def test_paths_that_lead_out(tmp_path: Path, name: str, said: str) -> None:
    bad = BadRecords()
    found = list(images.read(zipped(tmp_path / "x.zip", {"a/1.png": png(), name: png()}), bad))
    assert len(found) == 1
    ((place, problem),) = bad
    assert place.endswith(name)
    assert said in problem


def test_links_that_lead_out(tmp_path: Path) -> None:
    folder = in_folder(tmp_path / "in", {"a/1.png": png(), "b/2.png": png()})
    (tmp_path / "secret.png").write_bytes(png())
    (folder / "a" / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "a" / "inside.png").symlink_to(folder / "b" / "2.png")
    bad = BadRecords()
    assert len(list(images.read(folder, bad))) == 3
    ((place, problem),) = bad
    assert place == f"{folder}/a/link.png"
    assert "leads out of the folder" in problem


def test_links_to_folders_are_told(tmp_path: Path) -> None:
    """They are not followed; a label's images would be missing."""
    in_folder(tmp_path, {"a/1.png": png(), "b/1.png": png(), "b/.hidden/2.png": png()})
    (tmp_path / "c").symlink_to("b")
    (tmp_path / ".d").symlink_to("b")
    bad = BadRecords()
    assert [record["label"] for record in images.read(tmp_path, bad)] == ["a", "b"]
    assert list(bad) == [
        (str(tmp_path / "c"), "is a link to a folder, and links are not followed; put its images there")
    ]


def test_a_label_whose_folder_has_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    for label in (b"a", b"\xff"):
        (tmp_path / os.fsdecode(label)).mkdir()
        (tmp_path / os.fsdecode(label) / "1.png").write_bytes(png())
    bad = BadRecords()
    assert [record["label"] for record in images.read(tmp_path, bad)] == ["a"]
    assert [problem for _, problem in bad] == ["lies in a folder whose name is not UTF-8; rename it"]


def test_an_image_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "x.zip", {"a/1.png": png("L"), "b/2.png": png("L") + b"0" * 1000})
    monkeypatch.setattr(images, "LARGEST", 500)
    with pytest.raises(UserError, match=r"b/2\.png: has 10\d\d bytes; an image file may have 500"):
        list(images.read(path))


@pytest.mark.parametrize("content", [b"", b"PK", b"text"])
def test_zip_that_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.zip: the zip file is damaged"):
        list(images.read(path))


@pytest.mark.parametrize("name", ["none", "none.zip", "none.npz"])
def test_no_such_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"{name}: "):
        list(images.read(tmp_path / name))


def test_zip_with_a_damaged_member(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"a/1.png": png(), "b/2.png": png()})
    path.write_bytes(path.read_bytes().replace(png()[-20:-12], b"........", 1))
    with pytest.raises(UserError, match=r"a/1\.png: cannot be read: Bad CRC-32"):
        list(images.read(path))


def test_arrays(tmp_path: Path) -> None:
    x = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.savez(tmp_path / "plain.npz", x=x, y=np.array([3, 5]))
    np.savez_compressed(tmp_path / "flags.npz", x=x, y=np.array([3, 5]), test=np.array([False, True]))
    plain, flags = (list(images.read(tmp_path / f"{name}.npz")) for name in ("plain", "flags"))
    assert [record["label"] for record in plain] == ["3", "5"]
    assert [record["test"] for record in flags] == [False, True]
    np.testing.assert_array_equal([record["image"] for record in plain], x)


X = np.zeros((1, 2, 2), np.uint8)
SHAPES = {
    "pickled": ({"x": np.array([{}], dtype=object), "y": np.array([1])}, "pickled"),
    "no y": ({"x": np.zeros((1, 2, 2), np.uint8)}, "must have x"),
    "floats": ({"x": np.zeros((1, 2, 2)), "y": np.array([1])}, "uint8"),
    "transparent": ({"x": np.zeros((1, 2, 2, 4), np.uint8), "y": np.array([1])}, "channels, 1 (grey) or 3 (RGB)"),
    "channels first": ({"x": np.zeros((1, 3, 8, 8), np.uint8), "y": np.array([1])}, "shape [1, 3, 8, 8]; its last"),
    "fewer labels": ({"x": np.zeros((2, 2, 2), np.uint8), "y": np.array([1])}, "2 whole numbers"),
    "labels that are no whole numbers": ({"x": np.zeros((1, 2, 2), np.uint8), "y": np.array([0.5])}, "whole numbers"),
    "flags that are texts": ({"x": X, "y": np.array([1]), "test": np.array(["no"])}, "such as no"),
    "flags that are no numbers": ({"x": X, "y": np.array([1]), "test": np.array([np.nan])}, "test must hold truth"),
    "flags that count": ({"x": X, "y": np.array([1]), "test": np.array([3])}, "or 0 and 1; it is of int64, such as 3"),
    "fewer flags": ({"x": np.zeros((1, 2, 2), np.uint8), "y": np.array([1]), "test": np.zeros(2, bool)}, "test"),
}


@pytest.mark.parametrize(("arrays", "said"), SHAPES.values(), ids=SHAPES)
def test_arrays_of_another_kind(tmp_path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"x\.npz: ") as error:
        list(images.read(tmp_path / "x.npz"))
    assert said in str(error.value)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x05\x06"])
def test_npz_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.npz: .*npz file"):
        list(images.read(tmp_path / "x.npz"))


@pytest.mark.parametrize(
    ("file", "count", "labels", "shape"),
    [
        ("cifar10_6k.npz", 6000, 10, (32, 32, 3)),
        ("mnist_6k.npz", 6000, 10, (28, 28)),
        ("omniglot_small1.zip", 2720, 136, (105, 105)),
    ],
)
def test_real_images(file: str, count: int, labels: int, shape: tuple[int, ...]) -> None:
    found = list(images.read(real_data("images") / file))
    assert len(found) == count
    assert len({record["label"] for record in found}) == labels
    assert {record["image"].shape for record in found} == {shape}
