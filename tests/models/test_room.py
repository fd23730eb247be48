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
from multitune.storage.memory import _left_in, free_memory
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


GROUPS: dict[str, tuple[str, int]] = {"limited": ("1000\n", 1000 - 700 + 300), "not": ("max\n", 9999)}


@pytest.mark.parametrize(("limit", "left"), GROUPS.values(), ids=GROUPS)
def test_a_control_group_has_what_its_limit_leaves(tmp_path: Path, limit: str, left: int) -> None:
    for name, text in (
        ("memory.max", limit),
        ("memory.current", "700\n"),
        ("memory.stat", "anon 5\ninactive_file 300\n"),
    ):
        (tmp_path / name).write_text(text)
    assert _left_in(tmp_path / "memory.max", "memory.current", "inactive_file", at_most=9999) == left
    assert _left_in(tmp_path / "none", "memory.current", "inactive_file", at_most=9999) == 9999
