"""Runs that are killed (SIGKILL) at random moments and resumed: weights, log and results as if nothing had happened.

Run as a script, ``python tests/training/test_kills.py MODEL DATA FOLDER KILLS SEED [CASE ...]`` does the killing. It
forks a child for each run, so that only one process pays for the imports, and trains nothing itself.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

import multitune as mt
from builders import OPTIONS, in_its_own_process
from multitune.plans import METHODS
from multitune.recipe import Recipe
from multitune.reports.page import FILE as REPORT
from multitune.results.run import FILE as RESULTS
from multitune.training.loading import load_corpus, load_plan
from multitune.training.run import prepare

CASES: dict[str, dict[str, Any]] = {
    **{method: {"method": method} for method in METHODS},
    "mtl, bf16, ema": {"precision": "bf16", "average": "ema", "average_horizon": 0.3},
    "reptile, trimmed, snapshots": {"method": "reptile", "trim_vocabulary": True, "average": "snapshots"},
    "gradvac, probed": {"method": "gradvac", "probe_every": 2},
}
"""Recipe keys."""
TIMES = ("seconds", "step_seconds", "probe_seconds", "share", "peak_memory_bytes")
EARLIEST, LATEST = -0.1, 0.95
"""Where a kill may fall, as a share of the time from a run's first line of log to its end; below 0 while it loads."""


def recipe(model: str, data: str, keys: dict[str, Any]) -> Recipe:
    """A run of a second, with a checkpoint every 3 gradients."""
    method = keys.get("method", "mtl")
    short: dict[str, Any] = {"budget": 12, "batch_size": 8, "validate_every": 6, "checkpoint_every": 3}
    quick = {"dev_limit": 4, "test_limit": 8, "precision": "fp32", "dropout": 0.1, "trim_vocabulary": False}
    given = {"model": model, "data": "panx", "path": data, "method": method, "options": OPTIONS.get(method, {})}
    return Recipe(**(given | short | quick | {"learning_rate": 1e-2} | keys))


def timeless(value: Any) -> Any:
    """A result without what a clock or the machine's memory decides."""
    if isinstance(value, dict):
        return {key: timeless(entry) for key, entry in value.items() if key not in TIMES}
    return [timeless(entry) for entry in value] if isinstance(value, list) else value


def outcome(run: Path) -> str:
    """A hash of the final weights, the log and the results of a run, times left out (and its report, made of these)."""
    digest = hashlib.blake2b()
    for file in sorted(path for path in run.rglob("*") if path.is_file() and path.name != REPORT):
        digest.update(str(file.relative_to(run)).encode())
        if file.suffix == ".jsonl":
            digest.update(repr([timeless(json.loads(line)) for line in file.read_text().splitlines()]).encode())
        elif file.suffix == ".json":
            digest.update(repr(timeless(json.loads(file.read_text()))).encode())
        else:
            digest.update(file.read_bytes())
    return digest.hexdigest()


def begun(one: Recipe, out: Path) -> int:
    """A child that trains, or resumes, a run."""
    if child := os.fork():
        return child
    try:
        mt.train(one, out, resume=True)
        os._exit(0)
    except BaseException:  # the child must not go on as if it were its parent
        traceback.print_exc()
        os._exit(1)


def ended(child: int) -> bool:
    """Wait for a child; whether it ended well."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def wait_for_log(out: Path) -> None:
    """Until a run that was just begun trains."""
    while not list(out.glob("**/metrics.jsonl")):
        time.sleep(0.001)


def killed(one: Recipe, out: Path, after: float) -> bool:
    """Kill a run so many seconds after it began to train, or while it loads; whether it had not finished by then."""
    child = begun(one, out)
    if after >= 0:
        wait_for_log(out)
    time.sleep(abs(after))
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL and not (out / RESULTS).exists()


def kill_and_resume(one: Recipe, out: Path, draw: random.Random, seconds: float) -> dict[str, Any]:
    """One kill, and the run to its end. ``checkpoint``: the newest at the kill; ``writing``: whether it was in one."""
    for attempt in range(20):
        run = out / str(attempt)
        after = draw.uniform(EARLIEST, LATEST) * seconds
        if killed(one, run, after):
            break
    else:
        raise AssertionError("every run ended before it could be killed")
    found = sorted(path.name for path in run.glob("**/checkpoints/[0-9]*"))
    writing = bool(list(run.glob("**/checkpoints/.*.part")))
    resumed = ended(begun(one, run))
    told = {"checkpoint": found[-1] if found else None, "writing": writing, "after": after}
    return told | {"outcome": outcome(run) if resumed else "failed"}


def main(model: str, data: str, folder: Path, kills: int, seed: int, names: list[str]) -> None:
    """Print a JSON line for each kill."""
    first = recipe(model, data, {})
    prepare(first, load_corpus(first), load_plan(first))  # what children have in common is imported once
    draw = random.Random(seed)
    wholes: dict[str, tuple[float, str]] = {}
    for kill in range(max(kills, len(names))):
        name = names[kill % len(names)]
        one = recipe(model, data, CASES[name])
        if name not in wholes:
            child = begun(one, folder / name / "whole")
            wait_for_log(folder / name / "whole")
            began = time.monotonic()
            assert ended(child)
            wholes[name] = (time.monotonic() - began, outcome(folder / name / "whole"))
        seconds, expected = wholes[name]
        found = kill_and_resume(one, folder / name / str(kill), draw, seconds)
        print(json.dumps({"case": name, "expected": expected} | found), flush=True)


def kill_runs(words: list[str | Path | int]) -> list[dict[str, Any]]:
    """What ``main`` prints, in a process of its own; every run has to come out as without a kill."""
    done = in_its_own_process(__file__, *words)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    print(
        f"\n{len(found)} kills, {sum(line['checkpoint'] is None for line in found)} before the first checkpoint, "
        f"{sum(line['writing'] for line in found)} inside the writing of one, "
        f"{len({line['checkpoint'] for line in found})} different newest checkpoints; "
        f"{sum(line['outcome'] == line['expected'] for line in found)} outcomes as without a kill"
    )
    assert [line for line in found if line["outcome"] != line["expected"]] == []
    return found


@pytest.mark.check
def test_each_method_survives_a_kill(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    seed = time.time_ns()  # the outcome must not depend on the moments: another set of them every time
    found = kill_runs([tiny_model, tiny_panx, tmp_path, len(METHODS), seed, *METHODS])
    assert {line["case"] for line in found} == set(METHODS)


@pytest.mark.slow
def test_a_hundred_kills(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    found = kill_runs([tiny_model, tiny_panx, tmp_path, 100, 0, *CASES])
    assert len(found) == 100
    assert any(line["writing"] for line in found)
    assert any(line["checkpoint"] is None for line in found)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]), sys.argv[6:])
