"""Where a model runs: what ``device`` means on machines with and without cards, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

import multitune as mt
from builders import recipe
from multitune.commands.schema import schema
from multitune.errors import UserError
from multitune.models.device import available, chosen
from multitune.models.precision import has_bf16
from multitune.recipe import Recipe
from multitune.recipe_files import is_saved_in, to_yaml


def machine(monkeypatch: pytest.MonkeyPatch, cards: int = 0, *, apple: bool = False, rank: str | None = None) -> None:
    """A machine as torch sees it; a process of torchrun where it has a rank."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: apple)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)


@pytest.mark.parametrize(
    ("device", "there", "expected"),
    [
        ("auto", {}, "cpu"),
        ("auto", {"apple": True}, "cpu"),
        ("auto", {"cards": 2}, "cuda"),
        ("auto", {"cards": 2, "rank": "1"}, "cuda:1"),
        ("auto", {"rank": "1"}, "cpu"),
        ("cpu", {"cards": 2, "rank": "1"}, "cpu"),
        ("cuda", {"cards": 1}, "cuda"),
        ("cuda", {"cards": 2, "rank": "1"}, "cuda:1"),
        ("cuda", {"cards": 2, "rank": "x"}, "cuda"),
        ("cuda:0", {"cards": 2, "rank": "1"}, "cuda:0"),
        ("mps", {"apple": True}, "mps"),
    ],
)
def test_what_a_recipe_names(
    monkeypatch: pytest.MonkeyPatch, device: str, there: dict[str, Any], expected: str
) -> None:
    machine(monkeypatch, **there)
    assert chosen(device) == torch.device(expected)


@pytest.mark.parametrize(
    ("device", "there", "told"),
    [
        ("cuda", {}, "device: cuda is not there; this machine has cpu"),
        ("cuda:2", {"cards": 2}, "device: cuda:2 is not there; this machine has cpu, cuda:0, cuda:1"),
        ("auto", {"cards": 1, "rank": "1"}, "device: cuda:1 is not there; this machine has cpu, cuda:0"),
        ("mps", {"cards": 1}, "device: mps is not there; this machine has cpu, cuda:0"),
    ],
)
def test_a_device_that_is_not_there_is_told_beside_those_that_are(
    monkeypatch: pytest.MonkeyPatch, device: str, there: dict[str, Any], told: str
) -> None:
    machine(monkeypatch, **there)
    with pytest.raises(UserError) as error:
        chosen(device)
    assert str(error.value) == told


@pytest.mark.parametrize("device", ["gpu", "CPU", "cuda:", "cuda:-1", "cuda:01", "cuda:1\n", "cuda:1234", "meta", ""])
def test_other_names_are_no_devices(device: str) -> None:
    with pytest.raises(UserError, match=r"device: must be auto, cpu, cuda, cuda:N or mps, not "):
        Recipe(data="panx", device=device)


def test_the_schema_says_what_is_allowed() -> None:
    assert schema()["properties"]["device"]["pattern"].startswith("^(auto|cpu|mps|cuda")


def test_bf16_is_not_taken_for_fast_where_nobody_knows() -> None:
    assert not has_bf16(torch.device("mps"))


MISSING = next(name for name in ("cuda:7", "mps") if name not in available())


def test_a_run_says_where_it_took_place_and_is_scored_on_any_machine(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path
) -> None:
    one = recipe(tiny_model, tiny_panx, budget=8, device="cpu")
    result = mt.train(one, tmp_path / "run")
    assert result.device == "cpu"
    (tmp_path / "run" / "recipe.yaml").write_text(to_yaml(one.model_copy(update={"device": MISSING})))
    assert mt.evaluate(tmp_path / "run", {"device": "cpu"}) == result.seen | result.unseen
    mt.evaluate(tmp_path / "run")
    for command in (mt.evaluate, mt.probe):
        with pytest.raises(UserError, match=f"device: {MISSING} is not there"):
            command(tmp_path / "run", {"device": MISSING})


def test_a_missing_device_is_told_before_the_data_are_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"device: {MISSING} is not there"):
        mt.train(Recipe(data="panx", path="nowhere", device=MISSING, precision="fp32", threads=1), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_may_move_to_another_device(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(to_yaml(Recipe(data="panx", device="cuda:1")))
    assert is_saved_in(file, Recipe(data="panx", device="cpu"))
    assert not is_saved_in(file, Recipe(data="panx", device="cpu", seed=1))
