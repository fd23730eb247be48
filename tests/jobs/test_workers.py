"""How many runs there are at once: by cards, cores, threads and memory."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console

from builders import recipe
from launching import recipe as launched_recipe
from multitune.commands.parallel import fitting, threads_each
from multitune.errors import DivergedError, RunError, UserError
from multitune.jobs.display import DONE, Lines
from multitune.jobs.job import Job, error_of
from multitune.jobs.processes import Processes, in_words
from multitune.screen.terminal import Terminal
from multitune.storage import control_groups, memory
from multitune.training.arithmetic import settled


@pytest.fixture
def four_cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


COUNTS = {
    "one a core": ([1] * 9, None, 4),
    "as many as there are runs": ([1] * 3, None, 3),
    "runs of two threads": ([2] * 9, None, 2),
    "runs of more threads than cores": ([8] * 9, None, 1),
    "the most threads decide": ([1, 1, 4], None, 1),
    "as asked": ([1] * 9, 6, 6),
    "never more than there are runs": ([1] * 3, 6, 3),
    "one after the other": ([1] * 3, 1, 1),
}


@pytest.mark.parametrize(("threads", "asked", "count"), COUNTS.values(), ids=COUNTS)
def test_the_number_of_runs_at_once(
    four_cores: None, tiny_model: Path, tiny_panx: Path, threads: list[int], asked: int | None, count: int
) -> None:
    runs = [recipe(tiny_model, tiny_panx, threads=each, device="cpu") for each in threads]
    assert fitting(runs, asked) == count


def test_models_of_single_languages_are_jobs_too(four_cores: None, tiny_model: Path, tiny_panx: Path) -> None:
    assert fitting([recipe(tiny_model, tiny_panx, "stl", threads=1, device="cpu")], None) == 4


def test_too_few_jobs_are_a_mistake(tiny_model: Path, tiny_panx: Path) -> None:
    with pytest.raises(UserError, match="--jobs: 0 is too few"):
        fitting([recipe(tiny_model, tiny_panx, threads=1)], 0)


def test_runs_share_the_cores_out_where_nothing_says_their_threads(
    four_cores: None, tmp_path: Path, tiny_model: Path, tiny_panx: Path
) -> None:
    assert [threads_each(count) for count in (1, 2, 3, 4, 9)] == [None, 2, 1, 1, 1]
    left_open, pinned = (recipe(tiny_model, tiny_panx, threads=each) for each in (None, 3))
    assert settled(left_open, [tmp_path], 2).threads == 2
    assert settled(left_open, [tmp_path]).threads == 4
    assert settled(pinned, [tmp_path], 2).threads == 3


GIB = 1 << 30
ROOM = {
    "the first one, whatever it takes": (0.1, {}, [], True),
    "nobody has told what a run takes": (64, {}, ["a"], False),
    "one more fits": (4, {"a": 3}, ["a"], True),
    "one more does not": (2, {"a": 3}, ["a"], False),
    "what runs will still grow": (5, {"a": 3}, ["a", "b"], False),
    "and fits": (6, {"a": 3}, ["a", "b"], True),
    "as many as are asked for": (64, {"a": 3}, ["a", "b", "c"], False),
}


@pytest.mark.parametrize(("free", "held", "running", "room"), ROOM.values(), ids=ROOM)
def test_no_more_runs_than_memory_has_room_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    free: float,
    held: dict[str, float],
    running: list[str],
    room: bool,
) -> None:
    (tmp_path / "meminfo").write_text(f"MemAvailable: {int(free * GIB) // 1024} kB\nSwapFree: 0 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(control_groups, "OWN", tmp_path / "none")
    workers = Processes(3)
    for name, bytes_held in held.items():
        workers.takes(name, int(bytes_held * GIB))
    assert workers.has_room(running) == room


def test_a_card_whose_run_has_ended_is_the_next_ones(tmp_path: Path) -> None:
    """And not one that a longer run still has."""
    workers, one = Processes(2, ["0", "1"]), launched_recipe(Path("model"), "data", "mtl")
    running, cards = list[str](), list[str]()
    for name, ended in (("long", None), ("short", "short"), ("third", "third"), ("fourth", None)):
        workers.has_room(running)
        cards.append(workers._environment(Job(name, one, tmp_path))["CUDA_VISIBLE_DEVICES"])
        running = [each for each in (*running, name) if each != ended]
    assert cards == ["0", "1", "1", "1"]


def test_errors_of_another_process_are_what_they_were() -> None:
    assert type(error_of("UserError", "budget: is wrong", "")) is UserError
    assert type(error_of("RunError", "the disk is full", "")) is RunError
    assert type(error_of("DivergedError", "it diverged", "")) is DivergedError
    fault = error_of("ZeroDivisionError", "division by zero", "Traceback ...")
    assert (type(fault).__name__, str(fault), fault.__notes__) == (
        "ZeroDivisionError",
        "division by zero",
        ["Traceback ..."],
    )
    assert [in_words(code) for code in (-9, 3)] == ["was killed by SIGKILL", "ended with exit code 3"]


def told(lines: Lines) -> None:
    with lines:
        for job in ("mtl-seed0", "sequential_reptile-options.inner_steps=1000-learning_rate=0.0001-seed10"):
            lines.started(job)
            lines.take(job, ["begin", 100000])
            lines.take(job, ["step", 50000, 1.25, 3.5])
            lines.take(job, ["validated", 50000, 81.25, "accuracy", 0.5])
            lines.take(job, ["step", 60000, 1.25, 3.5])
            lines.take(job, ["say", "evaluating \x1b[2J3 languages"])
        lines.ended("mtl-seed0", DONE)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_display_keeps_to_a_terminals_width(width: int) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, legacy_windows=False, color_system=None)
    told(Lines(2, lambda: Terminal(console)))
    assert isinstance(console.file, io.StringIO)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue().replace("\r", "\n"))
    bars = [line for line in shown.splitlines() if "/100000" in line]
    assert max(map(len, bars)) <= width
    assert any("mtl-seed0" in line and "60000/100000" in line for line in bars)
    assert any("60000/100000 dev accuracy 81.2" in line for line in bars) or width < 80
    assert "all runs" in shown


def test_the_display_is_plain_lines_in_a_pipe() -> None:
    console = Console(file=io.StringIO(), width=80)
    told(Lines(2, lambda: Terminal(console)))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "mtl-seed0: 50000/100000 gradients, dev accuracy 81.2, drift 0.50"
    assert lines[1] == "mtl-seed0: evaluating \\x1b[2J3 languages"
    assert lines[-1] == "mtl-seed0: done, dev accuracy 81.2"
    assert len(lines) == 5
