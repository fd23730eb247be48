"""Precision and threads: settled once, kept for a run's other sessions, and put back afterwards."""

from pathlib import Path
from typing import Any

import pytest
import torch

from multitune.errors import UserError
from multitune.models.precision import resolve
from multitune.recipe import Recipe, to_yaml
from multitune.training.arithmetic import computing_with, settled

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def saved(folder: Path, **keys: Any) -> Path:
    folder.mkdir()
    (folder / "recipe.yaml").write_text(to_yaml(Recipe(data="panx", **keys)))
    return folder


def test_what_a_recipe_leaves_open_is_this_machines(tmp_path: Path) -> None:
    found = settled(Recipe(data="panx"), [tmp_path / "new"])
    assert (found.precision, found.threads) == (resolve("auto", DEVICE), torch.get_num_threads())


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
def test_threads_are_put_back(threads: int | None) -> None:
    before = torch.get_num_threads()

    def fail() -> None:
        with computing_with(threads):
            assert torch.get_num_threads() == (threads or before)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == before
