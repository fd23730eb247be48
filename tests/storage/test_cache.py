"""The cache: found again, checked, mended, shared by processes, and never in the way of what it is for."""

import hashlib
import multiprocessing
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from builders import disk
from multitune.errors import RunError, UserError
from multitune.storage import cache, scratch
from multitune.storage.interrupt import Leave

KEY = cache.key("a text", 1, [None, {"a": 2.5}])
VALUE = "words " * 100


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder, with a folder for temporary ones beside it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    return tmp_path / "home"


def fill(folder: Path) -> None:
    (folder / "a.txt").write_text(VALUE)
    (folder / "b.txt").write_text("other words")


def write(value: str, folder: Path) -> None:
    (folder / "a.txt").write_text(value)


def unwanted() -> str:
    raise AssertionError("it is in the cache")


def text(make: Callable[[], str] = lambda: VALUE, key: str = KEY) -> str:
    """A value that is kept in one file."""
    return cache.kept("texts", key, make=make, write=write, read=lambda folder: (folder / "a.txt").read_text())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_was_kept_is_found_again() -> None:
    assert text() == VALUE
    assert text(unwanted) == VALUE
    folder = cache.folder("folders", KEY, fill)
    assert contents(folder).keys() == {"a.txt", "b.txt", cache.SUMS}
    assert cache.folder("folders", KEY, lambda _: pytest.fail("it is in the cache")) == folder
    assert folder == cache.root() / "folders" / KEY


def test_hashes_are_those_of_sha256sum() -> None:
    folder = cache.folder("folders", KEY, fill)
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in ("a.txt", "b.txt")]
    assert (folder / cache.SUMS).read_text() == "".join(lines)


def test_other_parts_are_other_keys() -> None:
    others = [("a text", 1), ("a text", 1, [None, {"a": 2.6}]), ("a text", 1, [None], {"a": 2.5}), ()]
    assert len({KEY, *(cache.key(*parts) for parts in others)}) == 5
    assert cache.code("storage/*.py") != cache.code("storage/cache.py") == cache.code("storage/cache.py")


def test_a_process_hashes_a_file_again_only_where_it_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    digest = hashlib.file_digest

    def counted(file: object, name: str) -> object:
        hashed.append(file)
        return digest(file, name)  # type: ignore[arg-type]

    monkeypatch.setattr(hashlib, "file_digest", counted)
    folder = cache.folder("folders", KEY, fill)
    cache.folder("folders", KEY, fill)
    hashed.clear()
    for _ in range(3):
        cache.folder("folders", KEY, fill)
    assert hashed == []
    time.sleep(0.02)  # a file system's clock may stand still for so long
    (folder / "a.txt").write_text(VALUE)
    cache.folder("folders", KEY, fill)
    assert len(hashed) == 2


def flipped(path: Path) -> None:
    content, times = path.read_bytes(), path.stat()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def replaced_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").touch()


def replaced_by_a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def unreadable(path: Path) -> None:
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")


OF_FILES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "a byte less": lambda path: os.truncate(path, path.stat().st_size - 1),
    "a byte more": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "zeros": lambda path: path.write_bytes(b"\0" * path.stat().st_size),
    "no text": lambda path: path.write_bytes(b"\xff\xfe" * 40),
    "one bit, at the old time": flipped,
    "removed": Path.unlink,
    "a folder": replaced_by_a_folder,
    "a link that leads nowhere": replaced_by_a_link,
    "unreadable": unreadable,
}


def emptied(entry: Path) -> None:
    shutil.rmtree(entry)
    entry.mkdir()


def replaced_by_a_file(entry: Path) -> None:
    shutil.rmtree(entry)
    entry.write_text(VALUE)


def linked_to_nowhere(entry: Path) -> None:
    shutil.rmtree(entry)
    entry.symlink_to("nowhere")


DAMAGES: dict[str, Callable[[Path], object]] = {
    f"{name}: {damage}": lambda entry, name=name, change=change: change(entry / name)
    for name in ("a.txt", "b.txt", cache.SUMS)
    for damage, change in OF_FILES.items()
} | {
    "a file more": lambda entry: (entry / "c.txt").write_text("which nobody wrote"),
    "a folder more": lambda entry: (entry / "c" / "d").mkdir(parents=True),
    "empty": emptied,
    "a file": replaced_by_a_file,
    "a link that leads nowhere": linked_to_nowhere,
    "names exchanged": lambda entry: (
        (entry / "a.txt").rename(entry / "c"),
        (entry / "b.txt").rename(entry / "a.txt"),
        (entry / "c").rename(entry / "b.txt"),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_damaged_is_made_anew_with_one_warning(
    damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    entry = cache.folder("folders", KEY, fill)
    good = contents(entry)
    for _ in range(2):
        cache.folder("folders", KEY, fill)  # found whole by this very process
    time.sleep(0.02)
    damage(entry)
    for _ in range(3):
        assert contents(cache.folder("folders", KEY, fill)) == good
    (warning,) = caplog.messages
    assert warning.startswith(f"{entry} is damaged (")
    assert os.listdir(entry.parent) == [KEY]


@pytest.mark.parametrize("change", [replaced_by_a_folder, flipped, Path.unlink])
def test_damaged_values_are_made_anew(change: Callable[[Path], object], caplog: pytest.LogCaptureFixture) -> None:
    text()
    change(cache.root() / "texts" / KEY / "a.txt")
    assert [text(), text(unwanted)] == [VALUE, VALUE]
    assert len(caplog.messages) == 1


def test_hidden_files_are_the_file_system_s_own(caplog: pytest.LogCaptureFixture) -> None:
    entry = cache.folder("folders", KEY, fill)
    (entry / ".nfs0000").write_text("removed while another process reads it")
    cache.folder("folders", KEY, fill)
    assert caplog.messages == []


@contextmanager
def a_file_for_a_home(home: Path) -> Iterator[None]:
    home.touch()
    yield


@contextmanager
def a_file_for_a_root(home: Path) -> Iterator[None]:
    home.mkdir()
    cache.root().touch()
    yield


@contextmanager
def files_for_uses(home: Path) -> Iterator[None]:
    cache.root().mkdir(parents=True)
    for use in ("texts", "folders"):
        (cache.root() / use).touch()
    yield


@contextmanager
def read_only(home: Path) -> Iterator[None]:
    with disk(home, megabytes=1):
        subprocess.run(["mount", "-o", "remount,ro", str(home)], check=True)
        yield


@contextmanager
def full(home: Path) -> Iterator[None]:
    with disk(home, megabytes=1):
        with suppress(OSError), (home / "filling").open("wb") as file:
            file.write(b"0" * 2**21)
        yield


@contextmanager
def without_permission(home: Path) -> Iterator[None]:
    home.mkdir(mode=0o500)
    if os.access(home, os.W_OK):
        pytest.skip("this user may write everywhere")
    yield
    home.chmod(0o700)


UNWRITABLE = [a_file_for_a_home, a_file_for_a_root, files_for_uses, read_only, full, without_permission]


@pytest.mark.parametrize("state", UNWRITABLE, ids=lambda state: state.__name__)
def test_where_it_cannot_be_written_one_line_names_the_folder(
    home: Path, caplog: pytest.LogCaptureFixture, state: Callable[[Path], AbstractContextManager[None]]
) -> None:
    with state(home):
        for key in (KEY, cache.key("another")):
            assert text(key=key) == VALUE
        stand_in = cache.folder("folders", KEY, fill)
        assert contents(stand_in).keys() == {"a.txt", "b.txt"}
        assert cache.folder("folders", KEY, lambda _: pytest.fail("once is enough")) == stand_in
        assert not list(home.rglob("*.part"))
    (warning,) = caplog.messages
    assert str(cache.root()) in warning
    assert "XDG_CACHE_HOME" in warning


def test_a_cache_that_can_only_be_read_is_used(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    with disk(home, megabytes=1):
        entry = cache.folder("folders", KEY, fill)
        text()
        (cache.root() / "texts" / KEY / "a.txt").write_text("damaged")
        subprocess.run(["mount", "-o", "remount,ro", str(home)], check=True)
        assert cache.folder("folders", KEY, lambda _: pytest.fail("it is in the cache")) == entry
        assert caplog.messages == []
        assert [text(), text()] == [VALUE, VALUE]
    damaged, unwritable = caplog.messages
    assert "is damaged (a hash differs)" in damaged
    assert "XDG_CACHE_HOME" in unwritable


def large(folder: Path) -> None:
    """More than a disk of a megabyte holds, by a library with errors of its own."""
    save_file({"weight": np.zeros(2**19, dtype=np.float32)}, folder / "model.safetensors")


def test_a_disk_that_fills_meanwhile_keeps_nothing_of_it(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    with disk(home, megabytes=1):
        assert (cache.folder("models", KEY, large) / "model.safetensors").stat().st_size > 2**20
        assert os.listdir(cache.root() / "models") == []
        assert "cannot be written" in caplog.text
        assert cache.folder("folders", KEY, fill) == cache.root() / "folders" / KEY, "there is room for it"


def test_without_any_room_the_error_says_so(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.touch()
    with disk(tmp_path / "small", megabytes=1) as small:
        for folder in (small, tmp_path / "none"):
            monkeypatch.setattr(tempfile, "tempdir", str(folder))
            with pytest.raises(RunError, match="XDG_CACHE_HOME and TMPDIR"):
                cache.folder("models", KEY, large)


def test_what_stands_in_goes_with_the_process(home: Path, tmp_path: Path) -> None:
    home.touch()
    assert made_elsewhere("pass", tmp_path).returncode == 0
    assert os.listdir(tmp_path / "temporary") == []
    assert made_elsewhere("os.kill(os.getpid(), signal.SIGKILL)", tmp_path).returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path / "temporary")) == 1
    stand_in = cache.folder("folders", KEY, fill)
    assert os.listdir(tmp_path / "temporary") == [stand_in.parent.name]


def made_elsewhere(then: str, tmp_path: Path) -> subprocess.CompletedProcess[bytes]:
    """Another process makes an entry, and does something while it is at it."""
    script = f"""
import os, signal
from multitune.storage import cache
def fill(folder):
    (folder / "a.txt").write_text("words")
    if folder.is_relative_to(cache.root()) or cache.root().parent.is_file():
        {then}
cache.folder("folders", {KEY!r}, fill)
"""
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary")}
    return subprocess.run([sys.executable, "-c", script], env=environment, stderr=subprocess.DEVNULL)


def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    assert made_elsewhere("os.kill(os.getpid(), signal.SIGKILL)", tmp_path).returncode == -signal.SIGKILL
    (left,) = (cache.root() / "folders").iterdir()
    assert left.name.endswith(".part")
    assert not scratch.in_use(left)
    text()
    assert not left.exists()


def test_what_a_living_process_is_filling_stays() -> None:
    (cache.root() / "texts").mkdir(parents=True)
    others = cache.root() / "texts" / ".multitune.abc.elsewhere.part"
    others.mkdir()
    with scratch.scratch(cache.root() / "texts") as own:
        text()
        assert scratch.in_use(own)
        assert scratch.in_use(others)
        assert own.exists()
        assert others.exists()
    assert not own.exists()


def test_what_another_user_fills_counts_as_in_use(tmp_path: Path) -> None:
    theirs = tmp_path / f".multitune.abc.{socket.gethostname()}.part"
    theirs.mkdir(mode=0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may look into any folder
    try:
        assert scratch.in_use(theirs)
    finally:
        os.seteuid(user)
        theirs.chmod(0o700)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Leave(signal.SIGTERM), UserError("a damaged source")])
def test_what_is_interrupted_leaves_nothing(error: BaseException) -> None:
    def failing(folder: Path) -> None:
        fill(folder)
        raise error

    with pytest.raises(type(error)):
        cache.folder("folders", KEY, failing)
    assert os.listdir(cache.root() / "folders") == []


def test_what_nobody_uses_for_long_goes() -> None:
    days = {"old": 31, "old.arrow": 31, "young": 29}
    for name, age in days.items():
        path = cache.root() / "folders" / name
        path.mkdir(parents=True)
        (path / "file").touch()
        os.utime(path, (time.time() - age * 24 * 3600,) * 2)
    text()
    assert os.listdir(cache.root() / "folders") == ["young"]


def test_use_keeps_an_entry_young() -> None:
    entry = cache.folder("folders", KEY, fill)
    os.utime(entry, (0, 0))
    cache.folder("folders", KEY, fill)
    assert time.time() - entry.stat().st_mtime < 3600


def test_what_is_cleared_between_check_and_reading_is_made_anew() -> None:
    text()

    def read(folder: Path) -> str:
        if cleared.pop():
            shutil.rmtree(cache.root())
        return (folder / "a.txt").read_text()

    cleared = [False, True]
    assert cache.kept("texts", KEY, make=lambda: "made anew", write=write, read=read) == "made anew"
    cleared = [True, True]
    assert cache.kept("texts", KEY, make=lambda: "made anew", write=write, read=read) == "made anew"


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_permissions_are_those_that_the_umask_gives(mask: int) -> None:
    before = os.umask(mask)
    try:
        entry = cache.folder("models", KEY, lambda folder: save_file({"w": np.zeros(1)}, folder / "w.safetensors"))
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (entry, *entry.iterdir())}
    assert modes == {KEY: 0o777 & ~mask, "w.safetensors": 0o666 & ~mask, cache.SUMS: 0o666 & ~mask}


@pytest.mark.parametrize("start", ["empty", "damaged"])
def test_processes_at_once_end_well(start: str) -> None:
    """They meet at one entry after the other: each of them always has the right files, whoever writes them."""
    keys = [cache.key(number) for number in range(15)]
    for key in keys if start == "damaged" else []:
        flipped(cache.folder("folders", key, fill) / "a.txt")
        text(key=key)
        (cache.root() / "texts" / key / cache.SUMS).unlink()
    fork = multiprocessing.get_context("fork")
    together = fork.Barrier(2)

    def ask() -> None:
        for key in keys:
            together.wait(timeout=60)
            for _ in range(2):
                folder = cache.folder("folders", key, fill)
                assert [(folder / name).read_text() for name in ("a.txt", "b.txt")] == [VALUE, "other words"]
                assert text(key=key) == VALUE

    both = [fork.Process(target=ask) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(timeout=60)
    assert [one.exitcode for one in both] == [0, 0]
    for use in ("folders", "texts"):
        assert sorted(os.listdir(cache.root() / use)) == sorted(keys)
