"""A model that memory has no room for is refused before its weights are read."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

from multitune.cli.app import main
from multitune.errors import UserError
from multitune.models import encoder as encoders
from multitune.models.room import check_room
from multitune.storage import control_groups, memory
from multitune.storage.memory import free_memory
from multitune.tasks import HeadMap, Tagging

HUGE = 10**12


@pytest.fixture
def huge(tmp_path: Path, tiny_model: Path) -> Path:
    """The tiny model's files, of which the configuration says that its two feed-forward layers are wide."""
    shutil.copytree(tiny_model, tmp_path / "huge")
    path = tmp_path / "huge" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"intermediate_size": HUGE}))
    return tmp_path / "huge"


def heads() -> HeadMap:
    return HeadMap.of_all(Tagging(("O", "B-PER")))


def test_it_says_what_is_needed_and_what_is_there(huge: Path) -> None:
    with pytest.raises(UserError) as raised:
        encoders.load(str(huge), heads(), layers=None, dropout=None, seed=0, device="cpu")
    said = re.fullmatch(
        r"model: .*huge needs ([\d,]+) bytes for its weights, and ([\d,]+) are free on cpu; .*", str(raised.value)
    )
    assert said
    needed, free = (int(number.replace(",", "")) for number in said.groups())
    wide = 2 * 4 * (2 * 16 * HUGE + HUGE)  # two layers, fp32: two matrices and the bias between them
    assert wide < needed < wide + 100_000
    assert 0 < free < needed


def test_the_command_line_ends_with_2_and_leaves_nothing(
    huge: Path,
    tiny_panx: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    (tmp_path / "recipe.yaml").write_text(f"data: panx\npath: {tiny_panx}\nmodel: {huge}\n")
    monkeypatch.setattr(sys, "argv", ["multitune", "train", str(tmp_path / "recipe.yaml"), "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not out.exists()


def test_what_fits_is_not_refused(tiny_model: Path) -> None:
    encoder = encoders.load(str(tiny_model), heads(), layers=1, dropout=None, seed=0, device="cpu")
    check_room(str(tiny_model), [encoder.model.config], heads().tasks, torch.device("cpu"))


def test_there_is_some_memory_here() -> None:
    free = free_memory(torch.device("cpu"))
    assert free is None or free > 2**20


SECOND = ("memory.max", "memory.current", "inactive_file")
FIRST = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
"""What versions 2 and 1 of control groups call the same things."""


@pytest.mark.parametrize(
    ("said", "folder", "names", "limit", "left"),
    [
        ("0::/", "", SECOND, "1000\n", 1000 - 700 + 300),
        ("0::/", "", SECOND, "max\n", 9999),
        ("0::/slurm/job_7/step_0", "slurm/job_7", SECOND, "1000\n", 1000 - 700 + 300),
        ("3:cpuset:/\n4:memory:/slurm/job_7\n0::/", "memory/slurm/job_7", FIRST, "1000\n", 1000 - 700 + 300),
        ("0::/not/seen/from/here", "", SECOND, "1000\n", 1000 - 700 + 300),
        ("", "", SECOND, "1000\n", 9999),
    ],
)
def test_memory_is_what_the_control_groups_of_the_process_leave(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    folder: str,
    names: tuple[str, str, str],
    limit: str,
    left: int,
) -> None:
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for name, text in zip((*names[:2], "memory.stat"), (limit, "700\n", f"anon 5\n{names[2]} 300\n"), strict=True):
        (tmp_path / folder / name).write_text(text)
    (tmp_path / "own").write_text(said + "\n" if said else "")
    (tmp_path / "meminfo").write_text(f"MemAvailable: {9999 // 1024} kB\nSwapFree: 0 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    for attribute, path in (("GROUPS", tmp_path), ("OWN", tmp_path / "own")):
        monkeypatch.setattr(control_groups, attribute, path)
    assert free_memory(torch.device("cpu")) == min(left, 9999 // 1024 * 1024)
