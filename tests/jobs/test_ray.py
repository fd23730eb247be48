"""Comparisons on a Ray cluster: those of this machine to the byte, and what is wrong in a line."""

import logging
import socket
from pathlib import Path
from typing import Any

import pytest

import multitune as mt
from builders import comparison_file
from multitune.errors import UserError
from test_processes import left


@pytest.mark.check
@pytest.mark.filterwarnings("ignore")
def test_runs_on_ray_are_those_of_this_machine(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    ray = pytest.importorskip("ray")
    file, given = comparison_file(tiny_model, tiny_panx), dict[str, Any](overrides={"budget": 20, "threads": 1})
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        mt.compare(file, tmp_path / "ray", on="ray", **given)
        with pytest.raises(UserError, match="no node of the Ray cluster has the 64 cores"):
            mt.compare(file, tmp_path / "many", on="ray", overrides={"budget": 20, "threads": 64})
    finally:
        ray.shutdown()
    mt.compare(file, tmp_path / "here", **given)
    assert left(tmp_path / "ray") == left(tmp_path / "here")


def test_there_is_no_other_place(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    with pytest.raises(UserError, match="--on: 'slurm' is no place for runs; write ray, or ray:ADDRESS"):
        mt.compare(comparison_file(tiny_model, tiny_panx), tmp_path / "out", on="slurm")
    assert not (tmp_path / "out").exists()


def test_a_cluster_that_is_not_there_is_a_mistake_at_once() -> None:
    """Ray itself tries for a quarter of an hour."""
    pytest.importorskip("ray")
    from multitune.jobs.on_ray import OnRay

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{free.getsockname()[1]}"
    for address, said in (
        (closed, "there is no such Ray cluster: .*refused"),
        ("nowhere", "there is no such Ray cluster"),
        ("//127.0.0.1:10001", "Ray's client cannot do runs"),
    ):
        with pytest.raises(UserError, match=said):
            OnRay(address, None, 1, on_cards=False)


@pytest.mark.parametrize(
    ("count", "cards", "share"), [(None, 2, 1), (1, 2, 1), (2, 2, 1), (3, 2, 0.5), (4, 3, 0.5), (3, 1, 0.333)]
)
def test_as_many_runs_as_are_asked_for_have_room_on_the_cards(count: int | None, cards: int, share: float) -> None:
    pytest.importorskip("ray")
    from multitune.jobs.on_ray import share_of_card

    assert share_of_card(count, cards) == share
