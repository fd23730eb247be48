"""Checkpoints: whole or not at all, what is kept, every kind of damage seen, no space, errors of the writing thread."""

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

from builders import accept, disk
from multitune.errors import RunError, UserError
from multitune.recipe import Recipe
from multitune.recipe_files import to_yaml
from multitune.results.digests import Digests
from multitune.storage import atomic
from multitune.training import checkpoint
from multitune.training.checkpoint import (
    SUMS,
    TENSORS,
    Damaged,
    Progress,
    RunState,
    flatten,
    load,
    load_newest,
    newest_digests,
    write,
)
from multitune.training.checkpoint_writer import CheckpointWriter, Written

STATE = checkpoint.STATE
RECIPE = Recipe(data="panx", method="mtl")
OTHER = to_yaml(Recipe(data="panx", method="fish"))


def state(gradients: int, *, recipe: str = to_yaml(RECIPE), size: int = 1000, best: int = 10) -> RunState:
    """A state that differs everywhere from that of other gradients."""
    return RunState(
        progress=Progress(gradients=gradients, losses=[1 / gradients], best={"average": 50.0, "gradients": best}),
        recipe=recipe,
        digests=Digests(train={"aa": f"{gradients}"}, dev={"aa": "0"}, test={"aa": "0", "bb": "1"}),
        log=f'{{"gradients": {gradients}, "event": "train"}}\n',
        weights={"w": torch.full((size,), float(gradients)), "b": torch.tensor(gradients, dtype=torch.bfloat16)},
        update={
            "optimizer": {"step": gradients, "betas": [0.9, 0.999], "none": None, "names": {3: "three"}},
            "slow": {"w": torch.ones(3)},
        },
        batches={"aa": {"epoch": 0, "position": gradients}},
    )


def same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    return bool(first == second)


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    write(flatten(state(10)), tmp_path)
    found, damages = load_newest(tmp_path, RECIPE, accept)
    assert found is not None
    assert damages == []
    assert same(vars(found), vars(state(10)))


def test_numbers_that_are_not_finite_come_back_and_the_json_is_strict(tmp_path: Path) -> None:
    diverged = state(10)
    diverged.progress.dev = float("inf")
    diverged.update["losses"] = [float("-inf"), float("nan")]
    written = write(flatten(diverged), tmp_path)
    json.loads((written / STATE).read_text(), parse_constant=pytest.fail)
    found, _ = load_newest(tmp_path, RECIPE, accept)
    assert found is not None
    assert found.progress.dev == float("inf")
    assert repr(found.update["losses"]) == "[-inf, nan]"


KEPT = {
    "the last two": ([10, 20, 30], 30, ["20", "30"]),
    "and the best": ([10, 20, 30, 40], 10, ["10", "30", "40"]),
    "an early one while it is the newest": ([10, 20, "25"], 20, ["10", "20", "25-early"]),
    "not after the next": ([10, 20, "25", 30], 20, ["20", "30"]),
    "an early one at the start": (["5"], 0, ["5-early"]),
    "the newest of early ones": ([10, "12", "15"], 10, ["10", "15-early"]),
}


@pytest.mark.parametrize(("written", "best", "kept"), KEPT.values(), ids=KEPT)
def test_what_is_kept(tmp_path: Path, written: list[int | str], best: int, kept: list[str]) -> None:
    for gradients in written:
        write(flatten(state(int(gradients), best=best), early=isinstance(gradients, str)), tmp_path)
    assert sorted(path.name.lstrip("0") for path in tmp_path.iterdir()) == kept
    found, _ = load_newest(tmp_path, RECIPE, accept)
    assert found is not None
    assert found.progress.gradients == int(written[-1])


def test_one_is_loaded_by_its_gradients(tmp_path: Path) -> None:
    for gradients in (10, 20, 30):
        write(flatten(state(gradients)), tmp_path)
    assert same(vars(load(tmp_path, 10, RECIPE)), vars(state(10)))
    with pytest.raises(Damaged, match="it cannot be read: No such file"):
        load(tmp_path, 15, RECIPE)
    flip(tmp_path / "000000010" / TENSORS, 0.5)
    with pytest.raises(Damaged, match=f"the hash of {TENSORS} differs"):
        load(tmp_path, 10, RECIPE)


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: flip(file, 0.5), lambda file: file.write_text("[]")])
def test_the_newest_whole_state_says_what_the_run_saw(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    assert newest_digests(tmp_path) is None
    for gradients in (10, 20):
        write(flatten(state(gradients)), tmp_path)
    assert newest_digests(tmp_path) == state(20).digests
    damage(tmp_path / "000000020" / STATE)
    assert newest_digests(tmp_path) == state(10).digests
    damage(tmp_path / "000000010" / STATE)
    assert newest_digests(tmp_path) is None


RECIPES = {
    "a key less": (to_yaml(RECIPE).replace("keep_checkpoints: false\n", ""), None),
    "a key more": (to_yaml(RECIPE) + "buget: 3\n", "its recipe: unknown key 'buget'"),
    "another value": (to_yaml(RECIPE).replace("budget: 2400", "budget: 3"), "it is of another recipe"),
    "not YAML": ("{", "its recipe:.*: not valid YAML"),
    "a list": ("[]", "it is of another recipe"),
}


@pytest.mark.parametrize(("text", "problem"), RECIPES.values(), ids=RECIPES)
def test_the_recipe_may_lack_keys_that_have_their_defaults(tmp_path: Path, text: str, problem: str | None) -> None:
    assert text != to_yaml(RECIPE)
    write(flatten(state(10, recipe=text)), tmp_path)
    if problem is None:
        assert load(tmp_path, 10, RECIPE).recipe == text
    else:
        with pytest.raises(Damaged, match=problem):
            load(tmp_path, 10, RECIPE)


def test_what_a_killed_write_left_is_no_checkpoint_and_goes_with_the_next(tmp_path: Path) -> None:
    write(flatten(state(10)), tmp_path)
    shutil.copytree(tmp_path / "000000010", tmp_path / ".000000020.part")
    (tmp_path / ".000000020.part" / SUMS).unlink()
    found, damages = load_newest(tmp_path, RECIPE, accept)
    assert found is not None
    assert (found.progress.gradients, damages) == (10, [])
    write(flatten(state(20)), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000010", "000000020"]


def flip(file: Path, at: float) -> None:
    content = bytearray(file.read_bytes())
    content[min(int(at * len(content)), len(content) - 1)] ^= 1
    file.write_bytes(content)


def fill(file: Path) -> None:
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 16] = b"\0" * 16
    file.write_bytes(content)


def into_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def into_link(file: Path) -> None:
    outside = file.parents[2] / f"outside-{file.name}"
    file.rename(outside)
    file.symlink_to(outside)


def older(file: Path) -> None:
    shutil.copy(file.parents[1] / "000000010" / file.name, file)


def of_another_run(file: Path) -> None:
    other = write(flatten(state(20, recipe=OTHER, size=999)), file.parents[2] / "other")
    shutil.copy(other / file.name, file)


class Trap:
    """Who unpickles it leaves a file behind."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("unpickled",)


TO_A_FILE: dict[str, Callable[[Path], object]] = {
    "emptied": lambda file: os.truncate(file, 0),
    "cut to a byte": lambda file: os.truncate(file, 1),
    "cut in half": lambda file: os.truncate(file, file.stat().st_size // 2),
    "a byte short": lambda file: os.truncate(file, file.stat().st_size - 1),
    "a byte long": lambda file: file.write_bytes(file.read_bytes() + b"\n"),
    "a bit of the first byte": lambda file: flip(file, 0.0),
    "a bit in the middle": lambda file: flip(file, 0.5),
    "a bit of the last byte": lambda file: flip(file, 1.0),
    "zeros in the middle": fill,
    "line ends converted": lambda file: file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n") + b"\r\n"),
    "a byte-order mark": lambda file: file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes()),
    "removed": lambda file: file.unlink(),
    "a folder": into_folder,
    "a link": into_link,
    "the older one": older,
    "another run's": of_another_run,
    "a pickle": lambda file: file.write_bytes(pickle.dumps(Trap())),
}


def with_true_hashes(path: Path, content: Any) -> None:
    """What damage cannot do, but a stranger can: another state.json with a hash that fits."""
    text = content if isinstance(content, str) else json.dumps(content)
    (path / STATE).write_text(text)
    (path / SUMS).write_text(checkpoint._sums(path))


def with_progress(path: Path, value: str) -> None:
    """A gradient count in JSON's spelling."""
    text = (path / STATE).read_text().replace('["gradients", 20]', f'["gradients", {value}]', 1)
    assert value in text
    with_true_hashes(path, text)


def with_tensors(path: Path, content: bytes) -> None:
    """As ``with_true_hashes``, for the tensors."""
    (path / TENSORS).write_bytes(content)
    (path / SUMS).write_text(checkpoint._sums(path))


def with_header(path: Path, change: Callable[[str], str]) -> None:
    """The tensors under another header."""
    content = (path / TENSORS).read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = change(content[8:end].decode()).encode()
    assert header != content[8:end]
    with_tensors(path, len(header).to_bytes(8, "little") + header + content[end:])


def plain(path: Path) -> Any:
    return json.loads((path / STATE).read_text())


def over_older(path: Path) -> None:
    shutil.rmtree(path)
    shutil.copytree(path.parent / "000000010", path)


def other_recipe(path: Path) -> None:
    shutil.rmtree(path)
    write(flatten(state(20, recipe=OTHER)), path.parent)


def emptied(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def into_linked_folder(path: Path) -> None:
    path.rename(path.parents[1] / "outside")
    path.symlink_to(path.parents[1] / "outside")


def into_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("")


def exchanged(path: Path) -> None:
    (path / STATE).rename(path / "other")
    (path / TENSORS).rename(path / STATE)
    (path / "other").rename(path / TENSORS)


TO_A_FOLDER: dict[str, Callable[[Path], object]] = {
    "emptied": emptied,
    "a link": into_linked_folder,
    "a file": into_file,
    "renamed": lambda path: path.rename(path.with_name("000000030")),
    "renamed to an early one": lambda path: path.rename(path.with_name("000000021-early")),
    "its name with a zero more": lambda path: path.rename(path.with_name("0000000020")),
    "its files exchanged": exchanged,
    "the older one's content": over_older,
    "another run's": other_recipe,
    "hashes in the other order": lambda path: (path / SUMS).write_text(
        "".join(reversed((path / SUMS).read_text().splitlines(keepends=True)))
    ),
    "true hashes, not JSON": lambda path: with_true_hashes(path, "{"),
    "true hashes, not UTF-8": lambda path: (
        (path / STATE).write_bytes(b"\xff"),
        (path / SUMS).write_text(checkpoint._sums(path)),
    ),
    "true hashes, a list": lambda path: with_true_hashes(path, []),
    "true hashes, deep": lambda path: with_true_hashes(path, "[" * 100_000 + "]" * 100_000),
    "true hashes, another format": lambda path: with_true_hashes(path, plain(path) | {"format": 0}),
    "true hashes, an unknown key": lambda path: with_true_hashes(path, plain(path) | {"more": 1}),
    "true hashes, a key less": lambda path: with_true_hashes(
        path, {k: v for k, v in plain(path).items() if k != "log"}
    ),
    "true hashes, no such tensor": lambda path: with_true_hashes(path, plain(path) | {"weights": {"tensor": "none"}}),
    "true hashes, progress of another kind": lambda path: with_true_hashes(path, plain(path) | {"progress": 3}),
    **{
        f"true hashes, {kind} as gradients": partial(with_progress, value=value)
        for kind, value in {
            "text": '"20"',
            "a fraction": "20.5",
            "nothing": "null",
            "NaN": "NaN",
            "another number": "21",
            "a number below zero": "-20",
            "4,000 digits": "9" * 4000,
            "5,000 digits": "9" * 5000,
            "a list": "[20]",
        }.items()
    },
}

TO_TENSORS: dict[str, Callable[[Path], object]] = {
    "a header of 2**60 bytes": lambda path: with_tensors(path, (2**60).to_bytes(8, "little") + b"{}"),
    "a header of 90 MB that is not there": lambda path: with_tensors(path, (9 * 10**7).to_bytes(8, "little") + b"{}"),
    "a header that is no JSON": lambda path: with_header(path, lambda header: header.replace("{", "[")),
    "a deep header": lambda path: with_header(path, lambda header: "[" * 100_000),
    "a wider type": lambda path: with_header(path, lambda header: header.replace("BF16", "F32")),
    "a type that is none": lambda path: with_header(path, lambda header: header.replace("BF16", "X16")),
    "a larger shape": lambda path: with_header(path, lambda header: header.replace("[1000]", "[1001]")),
    "a huge shape": lambda path: with_header(path, lambda header: header.replace("[1000]", f"[{2**62},{2**62}]")),
    "offsets beyond the end": lambda path: with_header(path, lambda header: header.replace("4014", "9014")),
    "offsets that overlap": lambda path: with_header(path, lambda header: header.replace("[0,", "[2,")),
    "a name twice": lambda path: with_header(path, lambda header: header.replace("update.slow.w", "weights.w")),
    "another name": lambda path: with_header(path, lambda header: header.replace("update.slow.w", "update.fast.w")),
    "a tensor less": lambda path: with_tensors(path, save({"weights.w": torch.ones(1000)})),
    "a tensor more": lambda path: with_tensors(path, save(load_file(path / TENSORS) | {"more": torch.ones(1)})),
    "a pickle": lambda path: with_tensors(path, pickle.dumps(Trap())),
}

DAMAGES = (
    {
        f"{file}: {kind}": lambda path, file=file, damage=damage: damage(path / file)
        for file in (TENSORS, STATE, SUMS)
        for kind, damage in TO_A_FILE.items()
    }
    | TO_A_FOLDER
    | {f"true hashes, tensors: {kind}": damage for kind, damage in TO_TENSORS.items()}
)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_seen_and_the_checkpoint_before_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], object]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "checkpoints"
    for gradients in (10, 20):
        write(flatten(state(gradients)), folder)
    damage(folder / "000000020")
    found, damages = load_newest(folder, RECIPE, accept)
    assert found is not None
    assert same(vars(found), vars(state(10)))
    (told,) = damages
    assert told.startswith(f"{folder}/0")
    assert " is damaged (" in told
    assert told.isprintable()
    shutil.rmtree(folder / "000000010")
    with pytest.raises(UserError, match="no other checkpoint is left"):
        load_newest(folder, RECIPE, accept)
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["", TENSORS, STATE, SUMS])
def test_what_may_not_be_read_is_passed_over(tmp_path: Path, name: str) -> None:
    for gradients in (10, 20):
        write(flatten(state(gradients)), tmp_path)
    (tmp_path / "000000020" / name).chmod(0)
    found, damages = load_newest(tmp_path, RECIPE, accept)
    (tmp_path / "000000020" / name).chmod(0o700)
    assert found is not None
    assert found.progress.gradients == 10
    assert damages == [f"{tmp_path / '000000020'} is damaged (it cannot be read: Permission denied)"]


def test_damaged_ones_are_no_part_of_what_is_kept(tmp_path: Path) -> None:
    """One that seems newer than what is written goes, and never the new one in its place."""
    for gradients in (10, 20):
        write(flatten(state(gradients)), tmp_path)
    (tmp_path / "000000020").rename(tmp_path / "000000025")
    for gradients in (20, 30):
        write(flatten(state(gradients)), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000010", "000000020", "000000030"]
    found, damages = load_newest(tmp_path, RECIPE, accept)
    assert found is not None
    assert (found.progress.gradients, damages) == (30, [])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    with disk(tmp_path / "disk", megabytes=1) as folder:
        yield folder


def test_without_space_the_checkpoints_before_stay(small_disk: Path) -> None:
    write(flatten(state(10, size=30_000)), small_disk)
    (small_disk / "other").write_bytes(b"x" * 850_000)
    for _ in range(2):
        with pytest.raises(RunError, match=r"of 120,\d{3} bytes, \d{2},\d{3} are free"):
            write(flatten(state(20, size=30_000)), small_disk)
    assert sorted(path.name for path in small_disk.iterdir()) == ["000000010", "other"]
    found, damages = load_newest(small_disk, RECIPE, accept)
    assert found is not None
    assert (found.progress.gradients, damages) == (10, [])
    (small_disk / "other").unlink()
    write(flatten(state(20, size=30_000)), small_disk)
    assert sorted(path.name for path in small_disk.iterdir()) == ["000000010", "000000020"]


def test_a_limit_of_file_sizes_is_told(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    write(flatten(state(10)), tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(RunError, match=r"of 400,\d{3} bytes: the limit of file sizes is reached .ulimit -f"):
            write(flatten(state(20, size=100_000)), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["000000010"]


def test_training_may_go_on_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    told: list[Written] = []
    now = state(10, size=3_000_000)
    with CheckpointWriter(tmp_path, told.append) as writer:
        writer.save(now)
        now.weights["w"] += 1
        now.progress.gradients, now.batches["aa"]["position"] = 20, 20
        writer.save(now)
        now.weights["w"] += 1
        writer.wait()
    assert [(written.path.name, written.bytes) for written in told] == [
        ("000000010", 12_000_014),
        ("000000020", 12_000_014),
    ]
    for gradients, weight in ((10, 10.0), (20, 11.0)):
        found, _ = load_newest(tmp_path, RECIPE, accept)
        assert found is not None
        assert (found.progress.gradients, float(found.weights["w"][-1])) == (30 - gradients, 21.0 - weight)
        shutil.rmtree(tmp_path / f"{30 - gradients:09d}")


def test_what_goes_wrong_in_the_thread_reaches_the_run(tmp_path: Path) -> None:
    told: list[Written] = []
    with CheckpointWriter(tmp_path / "file" / "checkpoints", told.append) as writer:
        (tmp_path / "file").write_text("in the way")
        writer.save(state(10))
        with pytest.raises(NotADirectoryError):
            writer.save(state(20))
    assert told == []


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path: Path, folder: bool) -> None:
    """As where a model was moved to another disk, and the run goes on."""
    elsewhere, link = tmp_path / "elsewhere", tmp_path / "target"
    for path in (elsewhere, link):
        if path is link:
            link.symlink_to(elsewhere)
        with atomic.replaced(path) as beside:
            if folder:
                beside.mkdir()
            (beside / "file" if folder else beside).write_text(path.name)
    assert not link.is_symlink()
    texts = [(path / "file" if folder else path).read_text() for path in (elsewhere, link)]
    assert texts == ["elsewhere", "target"]


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, folder: bool) -> None:
    target = tmp_path / "target"
    content = target / "file" if folder else target
    content.parent.mkdir(exist_ok=True)
    content.write_text("old")

    def rewrite(text: str, *, fails: bool) -> None:
        with atomic.replaced(target) as beside:
            if folder:
                beside.mkdir()
            (beside / "file" if folder else beside).write_text(text)
            if fails:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rewrite("half", fails=True)
    assert content.read_text() == "old"
    rewrite("new", fails=False)
    assert content.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
