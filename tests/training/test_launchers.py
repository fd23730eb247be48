"""The launchers themselves start two ranks, whose run is that of one process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed

import multitune as mt
from builders import recipe
from multitune.recipe_files import to_yaml

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch has no torch.distributed here")
LAUNCHERS = {
    "torchrun": ("torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
    "accelerate launch": (
        "accelerate.commands.launch",
        "--multi_gpu",  # its word for one machine with several processes; with --cpu it starts a single one
        *("--num_processes", "2", "--num_machines", "1", "--main_process_port", "0"),
        *("--mixed_precision", "no", "--dynamo_backend", "no"),
    ),
}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_panx: Path) -> Path:
    """A recipe file, beside the run ``one`` that a single process has made of it."""
    path = tmp_path_factory.mktemp("launchers") / "recipe.yaml"
    one = recipe(tiny_model, tiny_panx, "pcgrad", learning_rate=1e-3, device="cpu", threads=1)
    path.write_text(to_yaml(one))
    mt.train(path, path.parent / "one")
    return path


@pytest.mark.check
@pytest.mark.parametrize("name", LAUNCHERS)
def test_two_ranks_of_a_launcher_leave_what_one_process_leaves(name: str, file: Path) -> None:
    module, *options = LAUNCHERS[name]
    if module.startswith("accelerate"):
        pytest.importorskip("accelerate")
    out, logs = file.parent / name, file.parent / f"{name}, logs"
    options += ["--tee", "3", "--log_dir", str(logs)]
    done = subprocess.run(
        [sys.executable, "-m", module, *options, "-m", "multitune", "train", file, "--out", out],
        env=os.environ | {"GLOO_SOCKET_IFNAME": "lo", "HF_HOME": str(file.parent)},  # no settings of a user's own
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = {path.parent.name: path.read_text() for path in logs.rglob("stderr.log")}
    assert {rank: "pcgrad seed 0: 40/40 gradients" in text for rank, text in told.items()} == {"0": True, "1": False}
    ours, theirs = (mt.RunResult.read(run) for run in (out, file.parent / "one"))
    assert (ours.seen, ours.unseen, ours.average) == (theirs.seen, theirs.unseen, theirs.average)
    assert ours.drift == pytest.approx(theirs.drift, abs=1e-6)
    weights = load_file(file.parent / "one" / "model" / "model.safetensors")
    for key, value in load_file(out / "model" / "model.safetensors").items():
        torch.testing.assert_close(value, weights[key], rtol=1e-5, atol=1e-5, msg=key)
