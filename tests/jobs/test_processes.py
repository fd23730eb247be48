"""Comparisons in several processes: equal to one after the other to the byte, and killed, stopped and gone on with."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

import multitune as mt
from builders import comparison_file
from multitune.recipe_files import dumped
from multitune.results.comparison import Comparison

pytestmark = pytest.mark.check

TIMES = {"seconds", "step_seconds", "probe_seconds", "peak_memory_bytes"}
LONGEST = 10.0
"""Seconds from a signal to the end of all processes."""


def timeless(value: Any) -> Any:
    """JSON without times and memory."""
    if isinstance(value, dict):
        return {key: timeless(each) for key, each in value.items() if key not in TIMES}
    return [timeless(each) for each in value] if isinstance(value, list) else value


def left(out: Path) -> dict[str, Any]:
    """What all files of a comparison hold, but for times, memory and the pages that show them."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file() and path.suffix not in {".html", ".md"}):
        name = str(path.relative_to(out))
        if path.suffix in {".json", ".jsonl"} and "model" not in path.parts:
            found[name] = [timeless(json.loads(line)) for line in as_lines(path)]
        else:
            found[name] = path.read_bytes()
    return found


def as_lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]


def recipe_of(folder: Path, tiny_model: Path, tiny_panx: Path, **keys: Any) -> Path:
    file = comparison_file(tiny_model, tiny_panx)
    path = folder / "tiny.yaml"
    path.write_text(dumped(file.run | keys | {"methods": file.methods}))
    return path


def begun(recipe: Path, out: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "multitune", "compare", recipe, "--out", out, "--jobs", "2", *words]
    return subprocess.Popen(
        list(map(str, command)), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def owners(out: Path) -> list[int]:
    """The processes that have the runs of a comparison."""
    found = []
    for path in out.glob("*/.owner"):
        try:
            found.append(int(json.loads(path.read_text())["pid"]))
        except (OSError, ValueError):  # just being written, or gone
            continue
    return found


def until(condition: Callable[[], Any], seconds: float = 200.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it never came")


def is_there(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def running(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_runs_at_once_are_those_of_one_after_the_other(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    file, names = comparison_file(tiny_model, tiny_panx), ["mtl", "stl"]
    given: dict[str, Any] = {"methods": names, "overrides": {"budget": 20, "threads": 1}}
    one, two = (mt.compare(file, tmp_path / str(jobs), jobs=jobs, **given) for jobs in (1, 2))
    assert timeless(left(tmp_path / "1")) == timeless(left(tmp_path / "2"))
    assert one.summary == two.summary
    assert any(name.endswith("model.safetensors") for name in left(tmp_path / "1"))
    assert one.runs[0].seconds != two.runs[0].seconds


def test_a_finished_run_gets_the_report_that_it_lacks(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    """Of a method with a model for each language, too, all of which are there."""
    file = comparison_file(tiny_model, tiny_panx)
    how: dict[str, Any] = {"methods": ["stl"], "overrides": {"budget": 4, "dev_limit": 2}}
    mt.compare(file, tmp_path / "all", **how)
    report = tmp_path / "all" / "stl-seed0" / "report.html"
    report.unlink()
    mt.compare(file, tmp_path / "all", jobs=2, **how)
    assert report.exists()


def test_a_fault_and_a_mistake_in_a_run_are_told_in_a_line(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    recipe = recipe_of(tmp_path, tiny_model, tiny_panx, clip=None)
    with running(begun(recipe, tmp_path / "out", "--grid", "learning_rate=1e-3,1e30", "budget=8")) as process:
        _, told = process.communicate(timeout=300)
    assert process.returncode == 1, told
    failed = Comparison.read(tmp_path / "out").failed
    assert [run.folder for run in failed] == [
        "mtl-learning_rate=1e+30-seed0",
        "sequential_reptile-learning_rate=1e+30-seed0",
    ]
    assert told.splitlines()[-1].startswith("multitune: 2 of 4 runs failed")
    assert "Traceback" not in told

    damaged = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (damaged / "model.safetensors").write_bytes(b"cut")
    with running(begun(recipe, tmp_path / "none", f"model={damaged}")) as process:
        _, told = process.communicate(timeout=300)
    assert process.returncode == 2, told
    assert str(damaged) in told.splitlines()[-1]
    assert "runs failed" not in told


def test_a_killed_worker_goes_on_from_its_checkpoint(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    recipe = recipe_of(tmp_path, tiny_model, tiny_panx, budget=300, checkpoint_every=10, threads=1)
    out = tmp_path / "killed"
    with running(begun(recipe, out)) as process:
        until(lambda: list(out.glob("*/checkpoints/[!.]*")))
        (victim,) = until(lambda: owners(out))[:1]
        os.kill(victim, signal.SIGKILL)
        _, told = process.communicate(timeout=400)
    assert process.returncode == 0, told
    assert "its process was killed by SIGKILL; it is run again" in told
    assert "resuming at" in told
    mt.compare(recipe, tmp_path / "whole")
    assert weights(out) == weights(tmp_path / "whole")
    assert timeless(left(out)["results.json"]) == timeless(left(tmp_path / "whole")["results.json"])


def weights(out: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for path in sorted(out.rglob("model.safetensors")):
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            found |= {f"{path.parent.parent.name} {k}": file.get_tensor(k).numpy().tobytes() for k in names}
    assert found
    return found


def test_a_worker_that_always_dies_fails_and_the_others_go_on(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path
) -> None:
    recipe, out = recipe_of(tmp_path, tiny_model, tiny_panx, budget=100000, validate_every=100), tmp_path / "out"
    words = ("--methods", "mtl,sequential", "--grid", "budget=20,100000")
    killed = set[int]()
    with running(begun(recipe, out, *words)) as process:
        while process.poll() is None:
            for pid in {pid for run in out.glob("*budget=100000*") for pid in owners_of(run)} - killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            time.sleep(0.05)
        _, told = process.communicate(timeout=400)
    assert process.returncode == 1, told
    assert len(killed) == 6
    found = Comparison.read(out)
    assert {run.grid["budget"] for run in found.failed} == {100000}
    assert {run.error for run in found.failed} == {"its process was killed by SIGKILL, the last of 3 times"}
    assert len(found.runs) == 2


def owners_of(run: Path) -> list[int]:
    return [pid for pid in owners(run.parent) if (run / ".owner").exists() and str(pid) in (run / ".owner").read_text()]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_all_in_time_and_the_same_command_goes_on(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, number: signal.Signals, code: int
) -> None:
    recipe, out = recipe_of(tmp_path, tiny_model, tiny_panx, budget=100000, threads=1), tmp_path / "out"
    logged = dict[Path, int]()
    for call in (1, 2):
        with running(begun(recipe, out)) as process:
            workers = until(lambda: pids if len(pids := owners(out)) == 2 else [])
            until(partial(grown, out, logged))
            began = time.monotonic()
            os.killpg(process.pid, number)  # as a terminal does
            _, told = process.communicate(timeout=60)
            assert time.monotonic() - began < LONGEST
        assert process.returncode == code, told
        end = "multitune: stopped; 0 of 2 runs are finished, and the same command goes on from there"
        assert told.splitlines()[-1] == end
        assert told.count("resuming at") == 2 * (call - 1)
        assert told.count(": stopped\n") == 2
        assert not any(map(is_there, workers))
        assert len(list(out.glob("*/checkpoints/[!.]*"))) >= 2
        logged = sizes(out)


def sizes(out: Path) -> dict[Path, int]:
    """How long the logs of the runs are."""
    return {path: path.stat().st_size for path in out.glob("*/metrics.jsonl") if path.stat().st_size}


def grown(out: Path, before: dict[Path, int]) -> bool:
    """Whether two runs have logged more than before."""
    now = sizes(out)
    return len(now) == 2 and all(size > before.get(path, 0) for path, size in now.items())


def test_workers_end_when_their_comparison_is_killed(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    recipe, out = recipe_of(tmp_path, tiny_model, tiny_panx, budget=100000), tmp_path / "out"
    with running(begun(recipe, out)) as process:
        workers = until(lambda: sizes(out) and owners(out))
        process.kill()
        until(lambda: not any(map(is_there, workers)), seconds=LONGEST)
    assert list(out.glob("*/checkpoints/*")), "they saved what they had"
