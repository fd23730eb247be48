"""Precision and threads: settled once, kept for a run's other sessions, and put back afterwards."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from multitune.errors import UserError
from multitune.models.precision import resolve
from multitune.recipe import Recipe
from multitune.recipe_files import to_yaml
from multitune.storage.cores import usable_cores
from multitune.training.arithmetic import computing_as, settled

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def saved(folder: Path, **keys: Any) -> Path:
    folder.mkdir()
    (folder / "recipe.yaml").write_text(to_yaml(Recipe(data="panx", **keys)))
    return folder


def test_what_a_recipe_leaves_open_is_this_machines(tmp_path: Path) -> None:
    found = settled(Recipe(data="panx"), [tmp_path / "new"])
    assert (found.precision, found.threads) == (resolve("auto", DEVICE), usable_cores())


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, ("bf16", 7)),
        ({"precision": "fp32"}, ("fp32", 7)),
        ({"threads": 3}, ("bf16", 3)),
        ({"precision": "fp32", "threads": 3}, ("fp32", 3)),
    ],
)
def test_a_folder_that_holds_a_run_decides_what_is_left_open(
    tmp_path: Path, keys: dict[str, Any], expected: tuple[str, int]
) -> None:
    folders = [tmp_path / "none", saved(tmp_path / "held", precision="bf16", threads=7), saved(tmp_path / "later")]
    found = settled(Recipe(data="panx", **keys), folders)
    assert (found.precision, found.threads) == expected


def test_a_damaged_recipe_is_told(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("budget: [")
    with pytest.raises(UserError, match=r"recipe.yaml:1: not valid YAML"):
        settled(Recipe(data="panx"), [tmp_path])


@pytest.mark.parametrize("threads", [None, 2])
@pytest.mark.parametrize("deterministic", [False, True])
def test_threads_and_algorithms_are_put_back(
    monkeypatch: pytest.MonkeyPatch, threads: int | None, deterministic: bool
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # put back afterwards, also where it was not there
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()

    def fail() -> None:
        with computing_as(Recipe(data="panx", threads=threads, deterministic=deterministic)):
            assert torch.get_num_threads() == (threads or before[0])
            assert torch.are_deterministic_algorithms_enabled() == deterministic
            assert "CUBLAS_WORKSPACE_CONFIG" in os.environ, "a later run of this process may be deterministic"
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_an_operation_that_has_no_deterministic_algorithm_is_named() -> None:
    def put() -> None:
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))

    put()
    no_put = pytest.raises(UserError, match="deterministic: torch has no deterministic put_; set it to false")
    with no_put, computing_as(Recipe(data="panx", deterministic=True)):
        put()
