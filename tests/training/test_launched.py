"""A run that several ranks share: what it leaves is one process's, and what ends a rank ends all."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed

import multitune as mt
from builders import WORDS, lines
from multitune.cli import app
from multitune.errors import AlreadySaid, UserError
from multitune.plans import METHODS, find
from multitune.plans.two_loop import ManyWalks
from multitune.recipe import Recipe, to_yaml
from multitune.training import launch
from multitune.training.run_folder import CHECKPOINTS

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch has no torch.distributed here")
RANKS = 2
LANGUAGES = ("aa", "bb", "cc", "dd")
RUNS: dict[str, dict[str, Any]] = {
    "mtl": {"average": "ema"},
    "mtl-of-2": {"options": {"tasks_per_step": 2}},
    "pcgrad": {"budget": 18},  # steps of 4, 4, 4, 4 and 2 tasks
    "gradvac": {"options": {"groups": "all_layer"}},
    "gradnorm": {},
    "famo": {"options": {"tasks_per_step": 3}},
    "torchjd:UPGrad": {},
    "recadam": {"options": {"t0": 2}},
    "sequential_reptile": {"budget": 26, "options": {"inner_steps": 5, "trajectories": 2}, "average": "ema"},
    "fish": {"options": {"trajectories": 4, "outer_optimizer": "nesterov"}, "select": "best"},
    "lookahead": {"options": {"inner_steps": 2, "trajectories": 2, "inner_state": "reset"}},
}
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


def environment(rank: int, port: int) -> dict[str, str]:
    """What torchrun tells a process."""
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": RANKS, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return (
        os.environ
        | {name: str(value) for name, value in own.items()}
        | {"GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": paths}
    )


def started(*arguments: str) -> list[subprocess.Popen[str]]:
    """The two processes of a launched Python program."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            env=environment(rank, port),
            cwd=Path(__file__).parent,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(RANKS)
    ]


def rank(folder: Path) -> None:
    """What each of two processes does."""
    with launch.joined() as ranks:
        assert ranks is not None
        found: dict[str, Any] = {}
        for file in sorted((folder / "recipes").iterdir()):
            resume = (folder / "two" / file.stem).exists()
            found[file.stem] = mt.train(file, folder / "two" / file.stem, resume=resume).seen
        os.chdir(folder / f"other{ranks.rank}")
        try:
            mt.train(folder / "other.yaml", folder / "two" / "other")
        except UserError as error:
            found["other"] = str(error)
        (folder / f"{ranks.rank}.json").write_text(json.dumps(found))


def rewound(run: Path) -> None:
    """Take from a finished run what came after its last but one checkpoint."""
    *_, last = sorted((run / CHECKPOINTS).iterdir())
    shutil.rmtree(last)
    for name in ("results.json", "report.html", "predictions.jsonl"):
        (run / name).unlink()
    shutil.rmtree(run / "model")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The folder of runs of one process, ``one``, and of two ranks, ``two``."""
    folder = tmp_path_factory.mktemp("launched")
    data = texts(folder / "data")
    recipes = {name: recipe(tiny_model, data, name, **keys) for name, keys in RUNS.items()}
    faulty = texts(folder / "faulty", outliers=1)
    recipes["faulty"] = recipe(tiny_model, faulty, "pcgrad")
    recipes["faulty-walks"] = recipe(tiny_model, faulty, "sequential_reptile", options={"trajectories": 2})
    (folder / "recipes").mkdir()
    for name, one in recipes.items():
        (folder / "recipes" / f"{name}.yaml").write_text(to_yaml(one))
        mt.train(folder / "recipes" / f"{name}.yaml", folder / "one" / name)
    shutil.copytree(folder / "one" / "gradvac", folder / "two" / "resumed")  # on two ranks what one process has begun
    rewound(folder / "two" / "resumed")
    shutil.copy(folder / "recipes" / "gradvac.yaml", folder / "recipes" / "resumed.yaml")
    for number in range(RANKS):
        texts(folder / f"other{number}" / "data", seed=number)
    (folder / "other.yaml").write_text(to_yaml(recipe(tiny_model, "data", "mtl")))
    ranks = started(
        "-c", "import pathlib, sys, test_launched; test_launched.rank(pathlib.Path(sys.argv[1]))", str(folder)
    )
    said = [process.communicate(timeout=400)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], said
    return folder


def assert_same_run(ours: Path, theirs: Path) -> None:
    """Weights to 1e-5, and the same steps, skips and validations."""
    weights = load_file(theirs / "model" / "model.safetensors")
    for name, weight in load_file(ours / "model" / "model.safetensors").items():
        torch.testing.assert_close(weight, weights[name], rtol=1e-5, atol=1e-5, msg=name)
    for kept, event in zip(lines(ours), lines(theirs), strict=True):
        numbers = {key: value for key, value in event.items() if isinstance(value, float) and key != "seconds"}
        for key, value in numbers.items():
            assert kept[key] == pytest.approx(value, rel=1e-3, abs=1e-3)
        whole = {key: value for key, value in event.items() if isinstance(value, int | str)}
        assert {key: kept[key] for key in whole} == whole
        assert kept.get("batches") == event.get("batches")


@pytest.mark.check
@pytest.mark.parametrize("name", [*RUNS, "faulty", "faulty-walks"])
def test_two_ranks_leave_what_one_process_leaves(name: str, runs: Path) -> None:
    assert_same_run(runs / "two" / name, runs / "one" / name)
    ours, theirs = (mt.RunResult.read(runs / side / name) for side in ("two", "one"))
    assert (ours.steps, ours.skipped_steps, ours.trained) == (theirs.steps, theirs.skipped_steps, theirs.trained)
    assert (ours.skipped_steps > 0) == name.startswith("faulty")
    assert {path.name for path in (runs / "two" / name).iterdir()} == {
        path.name for path in (runs / "one" / name).iterdir()
    }
    seen = [json.loads((runs / f"{number}.json").read_text())[name] for number in range(RANKS)]
    assert seen == [ours.seen, ours.seen]


@pytest.mark.check
def test_a_checkpoint_resumes_on_any_number_of_ranks(runs: Path) -> None:
    assert_same_run(runs / "two" / "resumed", runs / "one" / "gradvac")
    back = shutil.copytree(runs / "two" / "famo", runs / "one" / "back")
    rewound(back)
    mt.train(runs / "recipes" / "famo.yaml", back, resume=True)
    assert_same_run(back, runs / "one" / "famo")


@pytest.mark.check
def test_a_rank_with_other_data_is_refused(runs: Path) -> None:
    for number in range(RANKS):
        assert (
            "the data of rank 1 differ from those of rank 0"
            in json.loads((runs / f"{number}.json").read_text())["other"]
        )


@pytest.mark.check
def test_a_killed_rank_ends_the_others_with_one_line(tmp_path: Path, tiny_model: Path) -> None:
    one = recipe(
        tiny_model, texts(tmp_path / "data"), "pcgrad", budget=100_000, validate_every=100_000, checkpoint_every=8
    )
    (tmp_path / "r.yaml").write_text(to_yaml(one))
    ranks = started("-m", "multitune", "train", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "run"))
    waited = time.monotonic()
    while not list((tmp_path / "run").glob("checkpoints/*/B2SUMS")):
        assert time.monotonic() - waited < 120
        assert ranks[0].poll() is None
        time.sleep(0.05)
    ranks[1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    said = [line for line in ranks[0].communicate(timeout=60)[1].splitlines() if line.startswith("multitune:")]
    assert time.monotonic() - killed < 10
    assert ranks[0].returncode == 1
    assert len(said) == 1
    assert re.search(
        "another rank has ended or cannot be reached .* go on from the newest checkpoint with --resume", said[0]
    )
    ranks[1].communicate()


def test_methods_that_are_not_shared_are_refused() -> None:
    for name, kind in METHODS.items():
        plan = kind()
        if plan.shares_tasks:
            launch.check_method(name, plan, RANKS)
            continue
        message = f"method: {name} runs in one process.*mtl, gradnorm, pcgrad, gradvac, famo"
        if isinstance(plan, ManyWalks):
            launch.check_method(name, kind.model_validate({"trajectories": 2 * RANKS}), RANKS)
            message = f"options.trajectories: 1 of {name} cannot be dealt evenly over 2 ranks; choose a multiple of 2"
        with pytest.raises(UserError, match=message):
            launch.check_method(name, plan, RANKS)
    launch.check_method("torchjd:UPGrad", find("torchjd:UPGrad")(), RANKS)


@pytest.mark.parametrize("command", ["compare", "evaluate", "probe", "report", "data"])
def test_other_commands_are_refused_by_one_rank(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before they read anything."""
    words: Mapping[int, type[Exception]] = {0: UserError, 1: AlreadySaid}
    for rank, kind in words.items():
        for name, value in environment(rank, 1).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(kind):
            app.app([command, "nothing"], standalone_mode=False)
