"""The study's methods on a card, from the pack that pack.py has made; prints one JSON object.

python bench/gpu/run.py [--pack runs/gpu/pack.tar] [--budget 2400] [--seeds 3] [--processes 8] [--minutes 10]

Needs torch and multitune's other requirements, and nothing from a network. Without a card, the CPU is measured (a dry
run: --budget 8 --seeds 1 --layers 1). After --minutes it begins nothing more, and says what is missing.

1. twenty steps on the card and on the CPU, both in fp32: how far the weights are from each other, and from the start;
2. gradient computations a second of 1, 4 and 8 processes at once;
3. every method with every seed on PAN-X: scores, drift, seconds;
4. the tests that need a card.
"""

import argparse
import json
import logging
import math
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
METHODS: Mapping[str, Mapping[str, Any]] = {
    "mixed": {"method": "mixed", "learning_rate": 2e-4},
    "reptile": {"method": "sequential_reptile", "learning_rate": 3e-4, "options": {"outer_lr": 0.5, "outer_lr_end": 1}},
    "reptile-permuted": {
        "method": "sequential_reptile",
        "learning_rate": 3e-4,
        "adam_beta1": 0,
        "options": {"order": "permuted", "inner_steps": 12, "outer_lr": 0.5, "outer_lr_end": 1},
    },
    "frozen-no-momentum": {"method": "mixed", "learning_rate": 2e-4, "adam_beta1": 0, "freeze": ["embeddings"]},
    "mixed-ema": {"method": "mixed", "learning_rate": 2e-4, "average": "ema"},
    "mixed-anchor-10": {"method": "mixed", "learning_rate": 2e-4, "anchor": 10},
}
"""Contenders of bench/evidence/plan.yaml: the one that it chose (K is the number of languages), and the best of A0."""
STEPS = 20
AT_ONCE = (1, 4, 8)
TESTS = ("tests/models/test_device.py",)


@dataclass(frozen=True)
class Task:
    """A training: its name, which is its folder's, and its recipe."""

    name: str
    recipe: Mapping[str, Any]


def unpacked(pack: Path, out: Path) -> Path:
    """The pack's folder; its weights as a file again, its repository and wheels where Python finds them."""
    shutil.rmtree(out, ignore_errors=True)
    with tarfile.open(pack) as tar:
        tar.extractall(out, filter="data")
    folder = out / "pack"
    with tarfile.open(folder / "repository.tar.gz") as tar:
        tar.extractall(folder / "repository", filter="data")
    if wheels := [str(path) for path in (folder / "wheels").glob("*.whl")]:
        target = str(folder / "site")
        words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", target]
        subprocess.run([*words, *wheels], check=True)
    sys.path[:0] = [str(folder / "repository" / "src"), str(folder / "site")]
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])
    write_weights(folder / "encoder")
    return folder


def write_weights(encoder: Path) -> None:
    """Turn blocks into the ``model.safetensors`` that they were made of."""
    import numpy as np
    from safetensors.numpy import save_file

    weights = {}
    with np.load(encoder / "blocks.npz") as blocks:
        for key in blocks.files:
            name, _, part = key.partition(":")
            if not part:
                weights[name] = blocks[name]
            elif part == "scales":
                pairs, scales = blocks[f"{name}:pairs"], blocks[key].astype(np.float32)
                numbers = np.stack([pairs & 15, pairs >> 4], axis=-1).reshape(len(pairs), -1).astype(np.float32)
                weights[name] = ((numbers - 8) * scales[:, None]).reshape(blocks[f"{name}:shape"])
    save_file(weights, encoder / "model.safetensors", metadata={"format": "pt"})


def train(task: Task, runs: Path, until: float) -> dict[str, Any] | None:
    """Train in a process of its own; None where the time was over before it began."""
    if time.time() > until:
        return None
    logging.disable(logging.WARNING)
    import multitune as mt

    result = mt.train(mt.Recipe(**task.recipe), runs / task.name, overwrite=True)
    average, steps = result.average, result.step_seconds
    scores = {"seen": average.seen, "unseen": average.unseen, "drift": result.drift}
    costs = {"seconds": result.seconds, "step_seconds": steps, "peak_memory_bytes": result.peak_memory_bytes}
    return scores | costs | {"budget": result.budget}


def all_at_once(tasks: Sequence[Task], processes: int, runs: Path, until: float) -> dict[str, dict[str, Any]]:
    """Train tasks, so many at a time; those that were not begun are missing."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = {task.name: pool.submit(train, task, runs, until) for task in tasks}
        found = {name: future.result() for name, future in futures.items()}
    return {name: each for name, each in found.items() if each is not None}


def rates(recipe: Mapping[str, Any], budget: int, runs: Path, until: float) -> dict[str, float]:
    """Processes at once -> gradient computations a second of all of them, validation and evaluation left out."""
    common = {**recipe, **METHODS["mixed"], "budget": budget, "validate_every": budget, "test_limit": 1}
    found = {}
    for count in AT_ONCE:
        tasks = [Task(f"rate-{count}-{place}", common) for place in range(count)]
        done = all_at_once(tasks, count, runs, until)
        if len(done) == count:
            found[str(count)] = sum(each["budget"] / each["step_seconds"] for each in done.values())
    return found


def twenty_steps(recipe: Mapping[str, Any], device: str, runs: Path, until: float) -> dict[str, float]:
    """How far weights lie from the CPU's after twenty steps in fp32, and how far these went; empty without time."""
    common = {**recipe, **METHODS["mixed"], "budget": STEPS, "validate_every": STEPS, "precision": "fp32"}
    tasks = [
        Task(f"twenty-{place}", {**common, "test_limit": 5, "device": place})
        for place in dict.fromkeys(("cpu", device))
    ]
    done = all_at_once(tasks, 2, runs, until)
    if len(done) < len(tasks):
        return {}
    from safetensors.numpy import load_file

    ours, theirs = (load_file(runs / tasks[place].name / "model" / "model.safetensors") for place in (-1, 0))
    apart = math.hypot(*(float(((ours[k] - theirs[k]) ** 2).sum()) ** 0.5 for k in theirs))
    return {"apart": apart, "went": done["twenty-cpu"]["drift"], "share": apart / done["twenty-cpu"]["drift"]}


def card_tests(folder: Path, device: str, until: float) -> str:
    """The last line of the tests that need a card; why they were not run."""
    left = until - time.time()
    if device == "cpu":
        return "not run: there is no card"
    if left <= 0:
        return "not run: the time was over"
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
    try:
        done = subprocess.run(
            words, cwd=folder / "repository", stdout=subprocess.PIPE, text=True, timeout=left, check=False
        )
    except subprocess.TimeoutExpired:
        return "stopped: the time was over"
    return done.stdout.strip().splitlines()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the study's methods on a card.")
    parser.add_argument("--pack", type=Path, default=ROOT / "runs" / "gpu" / "pack.tar")
    parser.add_argument("--budget", type=int, default=2400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "gpu" / "work")
    given = parser.parse_args()
    until = time.time() + 60 * given.minutes * 0.8  # what was begun has a fifth of the time to end
    work = given.work.resolve()
    folder = unpacked(given.pack, work)
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = {"data": "panx", "path": str(folder / "panx"), "model": str(folder / "encoder"), "layers": given.layers}
    recipe = {**data, "dropout": 0, "threads": 1, "device": device, "precision": "bf16" if device == "cuda" else "auto"}
    short = min(given.budget, 200)
    said: dict[str, Any] = {
        "card": torch.cuda.get_device_name() if device == "cuda" else None,
        "torch": torch.__version__,
        "budget": given.budget,
        "twenty_steps": twenty_steps(recipe, device, work / "runs", until),
        "gradients_a_second": rates(recipe, short, work / "runs", until),
        "card_tests": card_tests(folder, device, until),
    }
    tasks = [
        Task(f"{name}-seed{seed}", {**recipe, **METHODS[name], "budget": given.budget, "seed": seed})
        for seed in range(given.seeds)
        for name in given.methods
    ]
    said["runs"] = all_at_once(tasks, given.processes, work / "runs", until)
    said["missing"] = [task.name for task in tasks if task.name not in said["runs"]]
    print(json.dumps(said))


if __name__ == "__main__":
    main()
