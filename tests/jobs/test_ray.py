"""Comparisons on a Ray cluster: those of this machine to the byte, and what is wrong in a line."""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import multitune as mt
from builders import comparison_file
from multitune.errors import UserError
from test_processes import left, owners_of, timeless, until, weights


@contextmanager
def cluster() -> Iterator[None]:
    """A Ray cluster of this machine, with two cores."""
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


@pytest.mark.check
@pytest.mark.filterwarnings("ignore")
def test_runs_on_ray_are_those_of_this_machine(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    file, given = comparison_file(tiny_model, tiny_panx), dict[str, Any](overrides={"budget": 20, "threads": 1})
    with cluster():
        mt.compare(file, tmp_path / "ray", on="ray", **given)
        with pytest.raises(UserError, match="no node of the Ray cluster has the 64 cores"):
            mt.compare(file, tmp_path / "many", on="ray", overrides={"budget": 20, "threads": 64})
    mt.compare(file, tmp_path / "here", **given)
    assert left(tmp_path / "ray") == left(tmp_path / "here")


def of_a_run(run: Path) -> int:
    """The process that makes a run which has a checkpoint."""
    until(lambda: list(run.glob("checkpoints/[!.]*")))
    process: int = until(lambda: owners_of(run))[0]
    return process


def kill_process(run: Path, screen: Path) -> None:
    """Kill the process that makes a run."""
    os.kill(of_a_run(run), signal.SIGKILL)


def kill_worker(run: Path, screen: Path) -> None:
    """Kill the Ray worker that has begun a run's process, which has not noticed when the next one comes."""
    process = of_a_run(run)
    os.kill(process, signal.SIGSTOP)
    worker = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(worker, signal.SIGKILL)
    until(lambda: f"{run.name}: waiting for its earlier process" in screen.read_text())
    os.kill(process, signal.SIGCONT)


@pytest.mark.check
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
def test_what_is_killed_on_ray_is_run_again_from_its_checkpoint(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = comparison_file(tiny_model, tiny_panx), tmp_path / "ray"
    given = dict[str, Any](overrides={"budget": 300, "checkpoint_every": 10, "threads": 1})
    kills = {"mtl-seed0": kill_process, "sequential_reptile-seed0": kill_worker}
    screen = tmp_path / "screen"
    killers = [threading.Thread(target=kill, args=[out / run, screen]) for run, kill in kills.items()]
    with cluster(), screen.open("w", buffering=1) as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        for killer in killers:
            killer.start()
        compared = mt.compare(file, out, on="ray", progress=True, **given)
        for killer in killers:
            killer.join()
    told = screen.read_text()
    assert "mtl-seed0: its process was killed by SIGKILL; it is run again from its newest checkpoint" in told
    assert "sequential_reptile-seed0: its process ended with its Ray worker" in told
    assert not compared.failed
    mt.compare(file, tmp_path / "here", **given)
    assert weights(out) == weights(tmp_path / "here")
    assert timeless(left(out)["results.json"]) == timeless(left(tmp_path / "here")["results.json"])


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
