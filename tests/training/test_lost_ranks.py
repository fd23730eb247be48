"""What ends one of several ranks, ends all of them with one line; the run goes on from its checkpoint."""

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from torch import distributed

import multitune as mt
from builders import disk
from launching import RANKS, Processes, assert_same_run, recipe, said, texts, train, wait_for
from multitune.recipe_files import to_yaml
from multitune.training.run_folder import CHECKPOINTS

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch has no torch.distributed here")
KILLS = 20
ENDS_WITHIN = 10
"""Seconds in which the others end, where a rank has."""
RECIPES: dict[str, dict[str, Any]] = {
    "pcgrad": {"options": {"tasks_per_step": 2}},
    "sequential_reptile": {"options": {"trajectories": 2, "inner_steps": 5}},
    "mixed": {"split_batch": True, "dropout": 0.0},
}


def written(folder: Path, model: Path, method: str, **keys: Any) -> Path:
    """A recipe file beside its data."""
    data = folder / "data"
    if not data.exists():
        texts(data)
    one = recipe(model, data, method, **{"checkpoint_every": 8, **RECIPES[method], **keys})
    (folder / f"{method}.yaml").write_text(to_yaml(one))
    return folder / f"{method}.yaml"


def last_words(process: subprocess.Popen[str]) -> list[str]:
    """What a rank says when another one has just been killed, within 10 s (ENDS_WITHIN); it has ended then.

    On a busy machine the end of a process takes longer than that, after its last word.
    """
    began = time.monotonic()
    assert process.stderr is not None
    with process.stderr as told:
        heard = [(line.rstrip(), time.monotonic() - began) for line in told if line.startswith("multitune:")]
    process.wait(timeout=60)
    assert all(seconds < ENDS_WITHIN for _, seconds in heard)
    return [line for line, _ in heard]


def killed(file: Path, out: Path, moment: float, victim: int, *more: str) -> bool:
    """Kill a rank so many seconds after the run has its folder; whether it has ended before."""
    processes = train(file, out, *more)
    wait_for("recipe.yaml", out, processes)
    time.sleep(moment)
    if processes[victim].poll() is not None:
        said(processes)
        return True
    processes[victim].kill()
    other = processes[1 - victim]
    lines = last_words(other)
    said(processes[victim : victim + 1])
    if other.returncode == 0:  # it had done its part
        return False
    assert len(lines) == 1, lines
    assert "another rank has ended or cannot be reached" in lines[0]
    assert lines[0].endswith("go on from the newest checkpoint with --resume")
    return False


def under_way(file: Path, out: Path) -> Processes:
    """The ranks of a run that has a checkpoint."""
    processes = train(file, out)
    wait_for(f"{CHECKPOINTS}/*/B2SUMS", out, processes)
    return processes


def resumed(file: Path, out: Path, ranks: int) -> None:
    processes = train(file, out, "--resume", ranks=ranks)
    assert said(processes) == []
    assert [process.returncode for process in processes] == [0] * ranks


@pytest.mark.check
def test_a_killed_rank_ends_the_others_and_one_process_goes_on(tmp_path: Path, tiny_model: Path) -> None:
    file = written(tmp_path, tiny_model, "sequential_reptile", budget=400, validate_every=400)
    mt.train(file, tmp_path / "alone")
    processes = under_way(file, tmp_path / "run")
    processes[1].kill()
    (line,) = last_words(processes[0])
    assert processes[0].returncode == 1
    assert "go on from the newest checkpoint with --resume" in line
    said(processes[1:])
    mt.train(file, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "alone")


@pytest.mark.check
def test_a_second_job_in_a_folder_is_refused_and_a_signal_ends_the_first(tmp_path: Path, tiny_model: Path) -> None:
    file = written(tmp_path, tiny_model, "pcgrad", budget=100_000, validate_every=100_000)
    first = under_way(file, tmp_path / "run")
    second = train(file, tmp_path / "run", "--resume")
    (line,) = said(second)
    assert "is in use by process" in line
    assert 2 in [process.returncode for process in second]
    assert all(process.poll() is None for process in first)
    first[1].send_signal(signal.SIGTERM)
    (line,) = said(first)
    assert "stopped after" in line
    assert [process.returncode for process in first] == [143, 143]
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()


@pytest.mark.check
def test_a_slow_rank_is_waited_for(tmp_path: Path, tiny_model: Path) -> None:
    """Stopped for longer than others take to notice a rank that has ended."""
    file = written(tmp_path, tiny_model, "pcgrad", budget=400, validate_every=400)
    mt.train(file, tmp_path / "alone")
    processes = under_way(file, tmp_path / "run")
    processes[1].send_signal(signal.SIGSTOP)
    time.sleep(ENDS_WITHIN + 2)
    assert [process.poll() for process in processes] == [None, None]
    processes[1].send_signal(signal.SIGCONT)
    assert said(processes) == []
    assert [process.returncode for process in processes] == [0, 0]
    assert_same_run(tmp_path / "run", tmp_path / "alone")


@pytest.mark.check
def test_a_full_disk_of_rank_0_ends_all(tmp_path: Path, tiny_model: Path) -> None:
    file = written(tmp_path, tiny_model, "pcgrad", budget=400, validate_every=400)
    mt.train(file, tmp_path / "alone")
    with disk(tmp_path / "disk", megabytes=2) as small:
        processes = under_way(file, small / "run")
        (small / "filler").write_bytes(b"x" * (shutil.disk_usage(small).free - 100_000))
        (line,) = said(processes)
        assert "no space" in line
        assert {process.returncode for process in processes} == {1}
        (small / "filler").unlink()
        mt.train(file, small / "run", resume=True)
        assert_same_run(small / "run", tmp_path / "alone")


@pytest.mark.slow
def test_ranks_that_are_killed_at_random_moments_lose_nothing(tmp_path: Path, tiny_model: Path) -> None:
    """On either rank, of three methods; what goes on is one process or two."""
    lot = random.Random(0)
    files = {method: written(tmp_path, tiny_model, method, budget=160) for method in RECIPES}
    seconds: dict[str, float] = {}
    for method, file in files.items():
        processes = train(file, tmp_path / method)
        wait_for("recipe.yaml", tmp_path / method, processes)
        began = time.monotonic()
        assert said(processes) == []
        seconds[method] = time.monotonic() - began
    early = 0
    for number in range(KILLS):
        method = lot.choice(list(RECIPES))
        out = tmp_path / f"{number}"
        early += killed(files[method], out, lot.uniform(0, seconds[method]), lot.randrange(RANKS))
        resumed(files[method], out, lot.choice([1, RANKS]))
        assert_same_run(out, tmp_path / method)
    assert early < KILLS / 2
