"""Runs whose model is divided over ranks: what they leave is one process's; they resume on any number of ranks."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from torch import distributed
from transformers import AutoModelForSequenceClassification

import multitune as mt
from launching import RANKS, assert_same_run, recipe, rewound, said, started, texts, train, wait_for
from multitune.errors import UserError
from multitune.plans import find
from multitune.recipe_files import to_yaml
from multitune.training import launch
from multitune.training.run_folder import CHECKPOINTS

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch has no torch.distributed here")
LORA = {"rank": 2, "alpha": 4, "dropout": 0.0}
RUNS: dict[str, dict[str, Any]] = {
    "mtl": {"gradient_checkpointing": True},
    "gradvac": {"options": {"groups": "all_layer"}, "average": "snapshots"},
    "famo": {"options": {"tasks_per_step": 3}, "select": "best"},
    "recadam": {"options": {"t0": 2}},
    "sequential_reptile": {"budget": 26, "options": {"inner_steps": 5, "outer_optimizer": "nesterov"}},
    "lookahead": {"options": {"inner_steps": 2, "inner_state": "reset"}, "average": "ema", "anchor": 0.1},
    "reptile": {"options": {"inner_steps": 2}},
    "pcgrad": {"lora": LORA, "gradient_checkpointing": True, "options": {"buckets": 2}},
    "sequential_reptile-of-adapters": {"lora": LORA, "gradient_checkpointing": True, "options": {"inner_steps": 5}},
}
SHARD: dict[str, Any] = {"shard": True, "dropout": 0.0, "batch_size": 5}


def rank(folder: Path) -> None:
    """What each of two processes does."""
    with launch.joined() as ranks:
        for file in sorted((folder / "recipes").iterdir()):
            mt.train(file, folder / "two" / file.stem, resume=(folder / "two" / file.stem).exists())
        found = {}
        for name, keys in REFUSED.items():
            try:
                mt.train(folder / "refused.yaml", folder / "no", overrides=keys)
            except UserError as error:
                found[name] = str(error)
        (folder / f"{ranks.rank}.json").write_text(json.dumps(found))


REFUSED: dict[str, dict[str, Any]] = {
    "shard: cannot stand beside swep, which has a loss that is no mean over labels": {"method": "swep"},
    "shard: cannot stand beside stl, which trains one model per language": {"method": "stl"},
    "shard (in a Trainer: fsdp): cannot stand beside torchjd:TrimmedMean, which reads whole gradients": {
        "method": "torchjd:TrimmedMean",
        "options": {"trim_number": 1},
    },
    "shard: cannot stand beside micro_batch_size; gradient_checkpointing saves memory, too": {"micro_batch_size": 2},
    "shard: cannot stand beside probe_every, which needs the model whole; set that to null": {"probe_every": 8},
    "shard: works with one head for all languages, without replay; set it to false": {"replay": {"share": 0.2}},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The folder of runs of one process, ``one``, and of two ranks, ``two``."""
    folder = tmp_path_factory.mktemp("sharded")
    data = texts(folder / "data")
    (folder / "recipes").mkdir()
    for name, keys in RUNS.items():
        (folder / "recipes" / f"{name}.yaml").write_text(to_yaml(recipe(tiny_model, data, name, **SHARD, **keys)))
        mt.train(folder / "recipes" / f"{name}.yaml", folder / "one" / name)
    for name in ("famo", "sequential_reptile"):  # on two ranks what one process has begun
        rewound(shutil.copytree(folder / "one" / name, folder / "two" / f"{name}-resumed"))
        shutil.copy(folder / "recipes" / f"{name}.yaml", folder / "recipes" / f"{name}-resumed.yaml")
    (folder / "refused.yaml").write_text(to_yaml(recipe(tiny_model, data, "mtl", **SHARD)))
    program = "import pathlib, sys, test_sharded_runs; test_sharded_runs.rank(pathlib.Path(sys.argv[1]))"
    ranks = started("-c", program, str(folder), folder=Path(__file__).parent)
    words = [process.communicate(timeout=400)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], "\n".join(words)[-3000:]
    return folder


@pytest.mark.check
@pytest.mark.parametrize("name", RUNS)
def test_two_ranks_leave_what_one_process_leaves(name: str, runs: Path) -> None:
    ours, theirs = runs / "two" / name, runs / "one" / name
    assert_same_run(ours, theirs)
    assert {path.name for path in ours.iterdir()} == {path.name for path in theirs.iterdir()}
    config = json.loads((ours / "model" / "config.json").read_text())
    assert config["architectures"] == json.loads((theirs / "model" / "config.json").read_text())["architectures"]
    _, info = AutoModelForSequenceClassification.from_pretrained(ours / "model", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]


@pytest.mark.check
def test_a_checkpoint_resumes_on_any_number_of_ranks(runs: Path) -> None:
    for name in ("famo", "sequential_reptile"):
        assert_same_run(runs / "two" / f"{name}-resumed", runs / "one" / name)
        back = shutil.copytree(runs / "two" / name, runs / "back" / name)
        rewound(back)
        mt.train(runs / "recipes" / f"{name}.yaml", back, resume=True)
        assert_same_run(back, runs / "one" / name)


@pytest.mark.check
def test_what_does_not_work_is_refused_in_a_line_by_all_ranks(runs: Path) -> None:
    for number in range(RANKS):
        assert json.loads((runs / f"{number}.json").read_text()) == {line: line for line in REFUSED}


@pytest.mark.check
def test_a_signal_ends_all_and_leaves_checkpoint_and_model(tmp_path: Path, tiny_model: Path) -> None:
    data = texts(tmp_path / "data")
    keys: dict[str, Any] = {"budget": 100_000, "validate_every": 100_000, "checkpoint_every": 8}
    (tmp_path / "long.yaml").write_text(to_yaml(recipe(tiny_model, data, "sequential_reptile", **SHARD, **keys)))
    processes = train(tmp_path / "long.yaml", tmp_path / "run")
    wait_for(f"{CHECKPOINTS}/*/B2SUMS", tmp_path / "run", processes)
    processes[1].send_signal(signal.SIGTERM)
    (line,) = said(processes)
    assert "stopped after" in line
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()


def test_one_process_needs_no_shards() -> None:
    """The checks of several ranks are not made; see the runs of one process above."""
    launch.check_method("pcgrad", find("pcgrad")(), RANKS, split_batch=True, key="shard")
    with pytest.raises(UserError, match="shard: cannot stand beside swep"):
        launch.check_method("swep", find("swep")(), RANKS, split_batch=True, key="shard")
