"""A terminal that is closed while a run goes on: as SIGTERM where it tells the run, and nothing at all where it does
not."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from builders import recipe
from multitune.recipe_files import to_yaml

pytest.importorskip("termios")
PROGRAM = "from multitune.cli.app import main; main()"
OWNED = f"import os; os.open(os.ttyname(0), os.O_RDWR); {PROGRAM}"
"""The terminal that the first process of a session opens is its own, and tells it of its end."""


def closed_at(pattern: str, out: Path, program: str, file: Path) -> subprocess.Popen[bytes]:
    """A run in a terminal, which is closed when the run folder has such a file."""
    master, slave = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", program, "train", file, "--out", out],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    os.set_blocking(master, False)
    last = time.monotonic() + 240
    while not list(out.glob(pattern)):
        assert process.poll() is None
        assert time.monotonic() < last
        time.sleep(0.02)
        try:
            os.read(master, 1 << 16)  # else the terminal is full, and the run waits for somebody to read
        except BlockingIOError:
            continue
    os.close(master)
    return process


@pytest.mark.check
def test_a_run_whose_terminal_is_closed_saves_what_it_has(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    file, out = tmp_path / "recipe.yaml", tmp_path / "run"
    file.write_text(to_yaml(recipe(tiny_model, tiny_panx, budget=100_000, checkpoint_every=50)))
    process = closed_at("checkpoints/[!.]*", out, OWNED, file)
    assert process.wait(timeout=240) == 129
    assert (out / "model" / "model.safetensors").exists()
    assert not (out / "results.json").exists()


@pytest.mark.check
def test_a_run_that_is_not_told_goes_on_without_its_terminal(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    """As ``setsid`` and ``disown`` leave it."""
    file, out = tmp_path / "recipe.yaml", tmp_path / "run"
    file.write_text(to_yaml(recipe(tiny_model, tiny_panx, budget=200)))
    process = closed_at("recipe.yaml", out, PROGRAM, file)
    assert process.wait(timeout=240) == 0
    assert (out / "report.html").exists()
