"""Comparisons on a Ray cluster: those of this machine to the byte, and what is wrong in a line."""

import logging
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
