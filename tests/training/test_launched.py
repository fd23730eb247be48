"""A run that several ranks share: what it leaves is one process's, and what ends a rank ends all."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import distributed

import multitune as mt
from builders import prepared
from launching import RANKS, assert_same_run, environment, recipe, rewound, started, texts
from multitune.cli import app
from multitune.errors import AlreadySaid, UserError
from multitune.evaluation.scoring import evaluate
from multitune.methods.ranks import Ranks
from multitune.plans import METHODS, find
from multitune.plans.two_loop import ManyWalks
from multitune.pseudo_tasks import clustering
from multitune.recipe_files import read, to_yaml
from multitune.training import launch

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch has no torch.distributed here")
LORA = {"rank": 2, "alpha": 4, "dropout": 0.0}
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
    "swep": {"options": {"tasks_per_step": 2}},
    "lookahead": {"options": {"inner_steps": 2, "trajectories": 2, "inner_state": "reset"}},
    "gradvac-of-adapters": {"lora": LORA, "gradient_checkpointing": True, "options": {"buckets": 2}},
    "sequential_reptile-of-adapters": {"lora": LORA, "options": {"inner_steps": 5, "trajectories": 2}},
}
SPLIT = ("mixed", "sequential_reptile", "reptile", "gradvac", "mtl", "famo", "torchjd:TrimmedMean")
"""Methods of which two ranks share each batch."""
RESUMED = ("gradvac", "sequential_reptile")
"""Runs that go on on two ranks; the checkpoint of the latter is within a round, where its trajectories part."""
EXACT = {f"split-{name}" for name in SPLIT}
"""Runs whose weights are one process's to 1e-6."""


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
        os.environ["XDG_CACHE_HOME"], clustering.SEED = str(Path.cwd()), ranks.rank
        try:
            mt.train(folder / "clusters.yaml", folder / "two" / "clusters")
        except UserError as error:
            found["clusters"] = str(error)
        try:
            launch.check_alike(ranks, {"data": "the same", "versions": {"torch": f"2.{ranks.rank}"}})
        except UserError as error:
            found["version"] = str(error)
        found["alike"] = evaluated_alike(folder / "recipes" / "mtl.yaml", ranks)
        (folder / f"{ranks.rank}.json").write_text(json.dumps(found))


def evaluated_alike(file: Path, ranks: Ranks) -> bool:
    """Whether ranks find in the same weights what one process finds, to the bit."""
    one = read(file).resolve()
    run = prepared(one)
    ours, theirs = (evaluate(run.encoder, run.heads, run.test, "fp32", ranks=each) for each in (ranks, Ranks()))
    same = all((ours.statistics[k] == theirs.statistics[k]).all() for k in theirs.statistics)
    return bool(same and ours.predictions == theirs.predictions and ours.scores == theirs.scores)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The folder of runs of one process, ``one``, and of two ranks, ``two``."""
    folder = tmp_path_factory.mktemp("launched")
    data = texts(folder / "data")
    recipes = {name: recipe(tiny_model, data, name, **keys) for name, keys in RUNS.items()}
    faulty = texts(folder / "faulty", outliers=1)
    recipes["faulty"] = recipe(tiny_model, faulty, "pcgrad")
    recipes["faulty-walks"] = recipe(tiny_model, faulty, "sequential_reptile", options={"trajectories": 2})
    half: dict[str, Any] = {"split_batch": True, "dropout": 0.0, "batch_size": 5}
    for name in SPLIT:
        options = {"trim_number": 1} if name == "torchjd:TrimmedMean" else {}
        recipes[f"split-{name}"] = recipe(tiny_model, data, name, options=options, **half)
    (folder / "recipes").mkdir()
    for name, one in recipes.items():
        (folder / "recipes" / f"{name}.yaml").write_text(to_yaml(one))
        mt.train(folder / "recipes" / f"{name}.yaml", folder / "one" / name)
    for name in RESUMED:  # on two ranks what one process has begun
        rewound(shutil.copytree(folder / "one" / name, folder / "two" / f"{name}-resumed"))
        shutil.copy(folder / "recipes" / f"{name}.yaml", folder / "recipes" / f"{name}-resumed.yaml")
    for number in range(RANKS):
        texts(folder / f"other{number}" / "data", seed=number)
    (folder / "other.yaml").write_text(to_yaml(recipe(tiny_model, "data", "mtl")))
    clusters: dict[str, Any] = {"pseudo_tasks": {"clusters": 4, "pca": 4}, "languages": ["aa"]}
    (folder / "clusters.yaml").write_text(to_yaml(recipe(tiny_model, data, "mtl", **clusters, batch_size=2)))
    program = "import pathlib, sys, test_launched; test_launched.rank(pathlib.Path(sys.argv[1]))"
    ranks = started("-c", program, str(folder), folder=Path(__file__).parent)
    said = [process.communicate(timeout=400)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], said
    return folder


@pytest.mark.check
@pytest.mark.parametrize("name", [*RUNS, "faulty", "faulty-walks", *(f"split-{name}" for name in SPLIT)])
def test_two_ranks_leave_what_one_process_leaves(name: str, runs: Path) -> None:
    assert_same_run(runs / "two" / name, runs / "one" / name, 1e-6 if name in EXACT else 1e-5)
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
    for name in RESUMED:
        assert_same_run(runs / "two" / f"{name}-resumed", runs / "one" / name)
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
def test_a_rank_that_finds_other_pseudo_tasks_is_refused(runs: Path) -> None:
    for number in range(RANKS):
        found = json.loads((runs / f"{number}.json").read_text())["clusters"]
        assert found == "torchrun: the pseudo-tasks of rank 1 differ from those of rank 0; all need the same"


@pytest.mark.check
def test_a_rank_with_another_version_is_refused_and_scores_do_not_depend_on_ranks(runs: Path) -> None:
    for number in range(RANKS):
        found = json.loads((runs / f"{number}.json").read_text())
        assert found["version"] == ("torchrun: the versions of rank 1 differ from those of rank 0; all need the same")
        assert found["alike"]


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
