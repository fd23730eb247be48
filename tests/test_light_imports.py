"""What each room loads: methods torch and nothing else of weight, readers not even that."""

import subprocess
import sys

import pytest

HEAVY = (
    "datasets",
    "matplotlib",
    "pyarrow",
    "pydantic",
    "rich",
    "scipy",
    "sklearn",
    "torch",
    "transformers",
    "typer",
    "yaml",
)
ROOMS: dict[str, set[str]] = {
    "multitune": set(),
    "multitune.data.conll": set(),
    "multitune.data.squad": set(),
    "multitune.data.tabular": set(),
    "multitune.hf": set(),
    "multitune.hf.batches": {"torch"},
    "multitune.methods": {"torch"},
    "multitune.plans": {"pydantic"},
    "multitune.screen.places": {"rich"},
    "multitune.screen.stages": set(),
}


@pytest.mark.parametrize(("room", "allowed"), ROOMS.items(), ids=ROOMS)
def test_a_room_loads_no_more_than_it_may(room: str, allowed: set[str]) -> None:
    code = f"import sys, {room}; print(*sorted(set({HEAVY}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= allowed
