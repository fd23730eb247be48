"""The cores that a process may use are those of torch, and no more than its control groups grant."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from builders import recipe
from multitune.commands.parallel import fitting, threads_each
from multitune.storage import control_groups
from multitune.storage.cores import usable_cores
from multitune.training.arithmetic import settled

Files = dict[str, str]
GROUPS: dict[str, tuple[str, Files, int]] = {
    "two whole cores": ("0::/", {"cpu.max": "200000 100000\n"}, 2),
    "three and a half": ("0::/", {"cpu.max": "350000 100000\n"}, 3),
    "a part of one": ("0::/", {"cpu.max": "25000 100000\n"}, 1),
    "another period": ("0::/", {"cpu.max": "30000 10000\n"}, 3),
    "no limit": ("0::/", {"cpu.max": "max 100000\n"}, 8),
    "more than there are": ("0::/", {"cpu.max": "6400000 100000\n"}, 8),
    "the tightest group": (
        "0::/slurm/job_7/step_0",
        {"cpu.max": "700000 100000\n", "slurm/job_7/cpu.max": "400000 100000\n", "slurm/cpu.max": "max 100000\n"},
        4,
    ),
    "seen from inside a container": ("0::/not/seen/from/here", {"cpu.max": "200000 100000\n"}, 2),
    "version 1": (
        "4:memory:/job\n3:cpuacct,cpu:/job\n0::/",
        {"cpu/job/cpu.cfs_quota_us": "500000\n", "cpu/job/cpu.cfs_period_us": "100000\n", "cpu.max": "max 100000\n"},
        5,
    ),
    "version 1, no limit": (
        "3:cpu,cpuacct:/\n0::/",
        {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
        8,
    ),
    "another controller's": ("4:cpuset:/", {"cpuset/cpu.max": "100000 100000\n"}, 8),
    "no control groups": ("", {"cpu.max": "100000 100000\n"}, 8),
}


@pytest.fixture(autouse=True)
def eight_cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    yield
    torch.set_num_threads(before)


def in_groups(folder: Path, monkeypatch: pytest.MonkeyPatch, said: str, files: Files) -> None:
    """A process that is in control groups with such files."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    if said:
        (folder / "own").write_text(said + "\n")
    monkeypatch.setattr(control_groups, "GROUPS", folder)
    monkeypatch.setattr(control_groups, "OWN", folder / "own")


@pytest.mark.parametrize(("said", "files", "cores"), GROUPS.values(), ids=GROUPS)
def test_cores_are_those_that_the_control_groups_grant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, files: Files, cores: int
) -> None:
    in_groups(tmp_path, monkeypatch, said, files)
    assert usable_cores() == cores


def test_runs_and_threads_keep_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path, tiny_panx: Path
) -> None:
    in_groups(tmp_path, monkeypatch, "0::/", {"cpu.max": "400000 100000\n"})
    one, open_one = (recipe(tiny_model, tiny_panx, threads=each, device="cpu") for each in (1, None))
    assert fitting([one] * 9, None) == 4
    assert threads_each(2) == 2
    assert settled(open_one, [tmp_path / "new"]).threads == 4
    assert settled(open_one.model_copy(update={"threads": 6}), [tmp_path / "new"]).threads == 6
