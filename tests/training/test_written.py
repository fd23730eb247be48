"""What a run writes: with which permissions, and what names of languages and a clock that jumps do to it."""

import itertools
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import multitune as mt
from builders import SIZES, lines, recipe, sentences, stop_after
from multitune.errors import Interrupted, UserError


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def modes(folder: Path) -> dict[str, set[int]]:
    """The permissions of the folders and of the files in a folder."""
    paths = [folder, *folder.rglob("*")]
    found = {path: stat.S_IMODE(path.lstat().st_mode) for path in paths}
    return {
        "folders": {mode for path, mode in found.items() if path.is_dir()},
        "files": {mode for path, mode in found.items() if path.is_file()},
    }


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_are_those_that_the_umask_gives(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, mask: int
) -> None:
    one, expected = recipe(tiny_model, tiny_panx, budget=12, validate_every=6), {0o777 & ~mask}
    with umask(mask), pytest.MonkeyPatch.context() as patch:
        stop_after(8, patch)
        with pytest.raises(Interrupted):
            mt.train(one, tmp_path / "run")
    assert len(list((tmp_path / "run").rglob("*.safetensors"))) == 3
    assert modes(tmp_path / "run") == {"folders": expected, "files": {0o666 & ~mask}}
    with umask(mask):
        mt.train(one, tmp_path / "run", resume=True)
    assert modes(tmp_path / "run") == {"folders": expected, "files": {0o666 & ~mask}}


NAMES = ["<img src=x onerror=alert(1)>", "\x1b[31mred", "a b", "ü", "-rf", "CON", ".hidden"]


def test_names_of_languages_lead_nowhere(tmp_path: Path, tiny_model: Path) -> None:
    """A model for each language has a folder for each: below the run folder, whatever files are called."""
    data = tmp_path / "data"
    data.mkdir()
    for name in NAMES:
        (data / f"train-{name}.tsv").write_text(sentences("aa", SIZES["aa"], seed=1))
        (data / f"dev-{name}.tsv").write_text(sentences("aa", 8, seed=2))
    before = sorted(tmp_path.iterdir())
    out = tmp_path / "out" / "run"
    mt.train(recipe(tiny_model, data, "stl", budget=16, languages=NAMES, unseen=[]), out)
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "out"])
    assert list((tmp_path / "out").iterdir()) == [out]
    assert "<img" not in (out / "report.html").read_text()


@pytest.mark.parametrize("name", [".", ".."])
def test_no_language_is_a_folder_above(tmp_path: Path, tiny_model: Path, name: str) -> None:
    for split in ("train", "dev"):
        (tmp_path / f"{split}-{name}.tsv").write_text(sentences("aa", 8, seed=1))
    with pytest.raises(UserError, match="cannot be the name of a folder"):
        mt.train(recipe(tiny_model, tmp_path, "stl", unseen=[]), tmp_path / "run")


def test_a_clock_that_jumps_changes_nothing(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Back by a year, forward by a century: seconds are those of a clock that nobody sets."""
    one = recipe(tiny_model, tiny_panx, budget=12, validate_every=6)
    steady = mt.train(one, tmp_path / "steady")
    jumps = itertools.cycle([0.0, -3e7, 3e9])
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + next(jumps))
    jumped = mt.train(one, tmp_path / "jumped")
    assert (jumped.seen, jumped.drift) == (steady.seen, steady.drift)
    seconds = [line["seconds"] for line in lines(tmp_path / "jumped")]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0
    assert seconds[-1] < 600
