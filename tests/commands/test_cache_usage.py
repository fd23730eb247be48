"""``multitune cache``: what it counts, and what it removes."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from multitune.cli.app import app
from multitune.commands.cache import clear, usage
from multitune.errors import UserError
from multitune.storage import cache, scratch


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def fill() -> None:
    """Two entries of one use, the larger one of another, and a file that an older version left."""
    for use, name, size in (("small", "1", 10), ("small", "2", 20), ("large", "1", 5_000_000)):
        cache.folder(use, name, lambda folder, size=size: (folder / "file").write_bytes(b"0" * size))  # type: ignore[misc]
    (cache.root() / "old.json").write_bytes(b"0" * 1000)


def test_sizes_are_by_use() -> None:
    assert usage() == []
    fill()
    sums = 64 + len("  file\n")
    assert [(use.use, use.entries, use.size) for use in usage()] == [
        ("large", 1, 5_000_000 + sums),
        ("old.json", 1, 1000),
        ("small", 2, 30 + 2 * sums),
    ]


def test_clearing_leaves_what_is_being_written(home: Path) -> None:
    assert clear() == 0
    fill()
    with scratch.scratch(cache.root() / "small") as beside:
        assert clear() > 5_000_000
        assert list((home / "multitune").rglob("*.part")) == [beside]
        assert [(use.use, use.entries) for use in usage()] == [("small", 1)]
    assert usage() == []


def test_what_a_killed_process_left_is_cleared() -> None:
    fill()
    left = cache.root() / "small" / ".multitune.abc.elsewhere.part"
    left.mkdir()
    clear()
    assert left.exists(), "another machine's may be in use"
    left.rename(left.with_name(f".multitune.abc.{os.uname().nodename}.part"))
    clear()
    assert usage() == []


def test_the_command_shows_and_clears(home: Path) -> None:
    fill()
    shown = CliRunner().invoke(app, ["cache"])
    assert shown.exit_code == 0
    for word in ("small", "large", "5.0", str(home / "multitune"), "XDG_CACHE_HOME"):
        assert word in shown.output
    cleared = CliRunner().invoke(app, ["cache", "--clear"])
    assert cleared.exit_code == 0
    assert "removed: 5.0 MB" in cleared.output
    assert usage() == []


def test_a_folder_that_cannot_be_read_is_one_line(home: Path) -> None:
    fill()
    (home / "multitune" / "small").chmod(0)
    if os.access(home / "multitune" / "small", os.R_OK):
        pytest.skip("this user may read every folder")
    with pytest.raises(UserError, match="small: the cache cannot be read"):
        clear()
    (home / "multitune" / "small").chmod(0o700)
