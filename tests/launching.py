"""Runs of several ranks, as torchrun starts them: their data, their recipes, their processes."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from builders import WORDS, lines
from multitune.recipe import Recipe
from multitune.training.run_folder import CHECKPOINTS

RANKS = 2
LANGUAGES = ("aa", "bb", "cc", "dd")
OUTLIER = 1e30
"""A finite score whose squared error is none."""


def texts(folder: Path, *, outliers: int = 0, seed: int = 0) -> Path:
    """Four languages' texts with scores; the first ones of bb, in training, are outliers."""
    folder.mkdir(parents=True)
    words = [word for kinds in WORDS.values() for kind in kinds for word in kind]
    for number, language in enumerate(LANGUAGES):
        for split, count in (("train", 24), ("dev", 6), ("test", 6)):
            rows = [
                {"text": f"{words[(n + number) % 20]} {words[(n * 7 + seed) % 20]}", "score": n % 5}
                for n in range(count)
            ]
            for row in rows[: outliers if (language, split) == ("bb", "train") else 0]:
                row["score"] = OUTLIER
            (folder / f"{split}-{language}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def recipe(model: Path, data: Path | str, name: str, **keys: Any) -> Recipe:
    defaults: dict[str, Any] = {"budget": 24, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32", "threads": 1}
    defaults |= {"columns": {"text": "text", "score": "score"}, "keep_checkpoints": True, "validate_every": 8}
    given = {"model": str(model), "data": "folder", "path": str(data), "method": name.partition("-of-")[0]}
    return Recipe(**(given | defaults | keys))


def environment(rank: int, port: int, ranks: int = RANKS) -> dict[str, str]:
    """What torchrun tells a process."""
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return (
        os.environ
        | {name: str(value) for name, value in own.items()}
        | {"GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": paths}
    )


Processes = list[subprocess.Popen[str]]


def started(*arguments: str, folder: Path, ranks: int = RANKS) -> Processes:
    """The processes of a launched Python program, which can import the modules of a folder of tests."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            env=environment(rank, port, ranks),
            cwd=folder,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]


def assert_same_run(ours: Path, theirs: Path, bound: float = 1e-5) -> None:
    """Weights and predictions to 1e-5 (or ``bound``), and the same steps, skips and validations."""
    weights = load_file(theirs / "model" / "model.safetensors")
    for name, weight in load_file(ours / "model" / "model.safetensors").items():
        torch.testing.assert_close(weight, weights[name], rtol=bound, atol=bound, msg=name)
    expected = predicted(theirs)
    torch.testing.assert_close(predicted(ours), expected, rtol=bound, atol=bound)
    # correlations with predictions that are all the same are those with their rounding errors
    without = {"seconds"} if expected.max() - expected.min() > 0.1 else {"seconds", "average"}
    for kept, event in zip(lines(ours), lines(theirs), strict=True):
        numbers = {key: value for key, value in event.items() if isinstance(value, float) and key not in without}
        for key, value in numbers.items():
            assert kept[key] == pytest.approx(value, rel=1e-3, abs=1e-3)
        whole = {key: value for key, value in event.items() if isinstance(value, int | str)}
        assert {key: kept[key] for key in whole} == whole
        assert kept.get("batches") == event.get("batches")


def predicted(run: Path) -> torch.Tensor:
    """The scores that a run's model gives the texts of the test split."""
    rows = (run / "predictions.jsonl").read_text().splitlines()
    return torch.tensor([json.loads(row)["prediction"] for row in rows])


def train(file: Path, out: Path, *more: str, ranks: int = RANKS) -> Processes:
    return started("-m", "multitune", "train", str(file), "--out", str(out), *more, folder=file.parent, ranks=ranks)


def wait_for(pattern: str, out: Path, processes: Processes) -> None:
    """Until a run folder has such a file, or a process has ended."""
    began = time.monotonic()
    while not list(out.glob(pattern)) and all(each.poll() is None for each in processes):
        assert time.monotonic() - began < 240
        time.sleep(0.02)


def said(processes: Processes) -> list[str]:
    """What all of them have said to a person at their end."""
    texts = [process.communicate(timeout=300)[1] for process in processes]
    return [line for text in texts for line in text.splitlines() if line.startswith("multitune:")]


def rewound(run: Path) -> None:
    """Take from a finished run what came after its last but one checkpoint."""
    *_, last = sorted((run / CHECKPOINTS).iterdir())
    shutil.rmtree(last)
    for name in ("results.json", "report.html", "predictions.jsonl"):
        (run / name).unlink()
    shutil.rmtree(run / "model")
