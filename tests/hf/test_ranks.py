"""Two ranks of DistributedDataParallel in the Trainer are one process with twice the batches."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from multitune.hf import MultitaskTrainer
from test_step_rows import causal
from tiny import trainer, weights

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch has no torch.distributed here")
# Steps as of AdamW would magnify the rounding that the order of a sum leaves.
COMMON: dict[str, Any] = {"optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0, "max_steps": 14}
TWO_LOOP: dict[str, Any] = {"inner_steps": 4, "outer_lr": 0.5}
METHODS: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "sequential_reptile": ("sequential_reptile", TWO_LOOP, {}, {"gradient_accumulation_steps": 2}),
    "reptile": ("reptile", {"inner_steps": 2, "outer_lr": 0.5}, {}, {"gradient_accumulation_steps": 2}),
    "lookahead": ("lookahead", TWO_LOOP, {}, {"gradient_accumulation_steps": 2}),
    "mtl": (
        "mtl",
        {},
        {"gradient_accumulation_steps": 2},
        {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2},
    ),
    "gradvac": (
        "gradvac",
        {},
        {"gradient_accumulation_steps": 3},
        {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 3},
    ),
    "gradvac, texts": (
        "gradvac",
        {},
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2},
        {"gradient_accumulation_steps": 2},
    ),
    "famo": (
        "famo",
        {},
        {"gradient_accumulation_steps": 3},
        {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 3},
    ),
}
"""Method, options, settings of each rank, settings of one process."""
SAVES: dict[str, Any] = {"save_strategy": "steps", "save_steps": 5}


def a_trainer(folder: Path, name: str, settings: dict[str, Any]) -> MultitaskTrainer:
    """On rows of one label, or on texts of different lengths, whose tokens the loss is a mean over."""
    method, options, *_ = METHODS[name]
    if name == "gradvac, texts":
        return causal(folder, method, **COMMON, **settings)
    return trainer(folder, method, options, **COMMON, **settings)


def rank(folder: Path, number: int) -> None:
    """What one of two processes does: it trains, and once more from a checkpoint within an epoch."""
    for name, (_, _, settings, _) in METHODS.items():
        one = a_trainer(folder / name, name, SAVES | settings)
        assert one.accelerator.num_processes == 2
        one.train()
        torch.save(weights(one.model), folder / f"{name}-{number}.pt")
        again = a_trainer(folder / f"{name}-resumed", name, SAVES | settings)
        again.train(resume_from_checkpoint=str(folder / name / "checkpoint-10"))
        torch.save(weights(again.model), folder / f"{name}-resumed-{number}.pt")
    distributed.destroy_process_group()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@pytest.mark.check
def test_two_ranks_are_one_process(tmp_path: Path) -> None:
    code = "import pathlib, sys, test_ranks; test_ranks.rank(pathlib.Path(sys.argv[1]), int(sys.argv[2]))"
    shared = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), str(number)],
            cwd=Path(__file__).parent,
            env=os.environ | shared | {"RANK": str(number), "LOCAL_RANK": str(number)},
        )
        for number in range(2)
    ]
    assert [process.wait(timeout=300) for process in ranks] == [0, 0]
    for name, (_, _, _, settings) in METHODS.items():
        one = a_trainer(tmp_path / "one", name, settings)
        one.train()
        whole = weights(one.model)
        for number in range(2):
            trained = torch.load(tmp_path / f"{name}-{number}.pt", weights_only=True)
            resumed = torch.load(tmp_path / f"{name}-resumed-{number}.pt", weights_only=True)
            for key, value in whole.items():
                torch.testing.assert_close(
                    trained[key], value, msg=f"{name}, rank {number}, {key}", rtol=1e-4, atol=1e-5
                )
                torch.testing.assert_close(
                    resumed[key], trained[key], msg=f"{name}, rank {number}, {key}", rtol=0, atol=0
                )
