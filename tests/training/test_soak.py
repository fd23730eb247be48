"""A long run with a checkpoint every 20 gradients: memory flat, no file left open, speed steady (make check-slow)."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

MINUTES = float(os.environ.get("MULTITUNE_SOAK_MINUTES", "20"))
WARM_UP = 0.25
"""Share of the time after which memory has to be flat and speed is compared."""
LANGUAGES = 40
EVERY = 5.0
"""Seconds between two samples."""
AT_ONCE = 3
"""Files that a checkpoint may have open while it is written."""


@dataclass(frozen=True)
class Sample:
    """What a run has, and has done, at one moment."""

    minutes: float
    megabytes: float
    files: int
    cpu_seconds: float
    gradients: int


def sampled(process: "subprocess.Popen[bytes]", run: Path, began: float) -> Sample:
    status = Path(f"/proc/{process.pid}/status").read_text()
    (resident,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    times = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return Sample(
        minutes=(time.monotonic() - began) / 60,
        megabytes=resident / 1024,
        files=len(list(Path(f"/proc/{process.pid}/fd").iterdir())),
        cpu_seconds=sum(map(int, times)) / os.sysconf("SC_CLK_TCK"),
        gradients=max(int(path.name[:9]) for path in (run / "checkpoints").glob("[0-9]*")),
    )


def recipe(languages: Sequence[str]) -> str:
    return (
        "model: offline:e5-small\nlayers: 2\ndata: assistant\nunseen: []\nmethod: sequential_reptile\nbudget: 1000000\n"
        f"languages: [{', '.join(languages)}]\nbatch_size: 4\nmax_length: 32\nschedule: constant\nwarmup: 0\n"
        "train_limit: 500\ndev_limit: 5\ntest_limit: 5\nvalidate_every: 250\ncheckpoint_every: 20\n"
    )


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads memory and open files from /proc")
def test_memory_is_flat_files_are_closed_and_speed_is_steady(tmp_path: Path) -> None:
    pytest.importorskip("hassil")
    from multitune.data.sets.assistant import languages

    chosen = languages()[:LANGUAGES]
    assert len(chosen) == LANGUAGES
    (tmp_path / "soak.yaml").write_text(recipe(chosen))
    command = [sys.executable, "-m", "multitune", "train", "soak.yaml", "--out", "run"]
    samples: list[Sample] = []
    with (tmp_path / "stderr").open("wb") as said, subprocess.Popen(command, cwd=tmp_path, stderr=said) as process:
        while process.poll() is None and not list(tmp_path.glob("run/checkpoints/0*")):
            time.sleep(1)
        began = time.monotonic()
        while process.poll() is None and time.monotonic() - began < 60 * MINUTES:
            samples.append(sampled(process, tmp_path / "run", began))
            time.sleep(EVERY)
        asked = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=60)
    assert code == 0, (tmp_path / "stderr").read_text()[-2000:]
    warm = [sample for sample in samples if sample.minutes > WARM_UP * MINUTES]
    lowest = [min(each, key=lambda sample: sample.megabytes) for each in by_minute(warm)]
    slope = float(np.polyfit([s.minutes for s in lowest], [s.megabytes for s in lowest], 1)[0])
    early, late = speed(warm[: len(warm) // 2]), speed(warm[len(warm) // 2 :])
    print(
        f"{MINUTES:g} minutes, {LANGUAGES} languages, {samples[-1].gradients} gradients: "
        f"memory {' '.join(f'{sample.megabytes:.0f}' for sample in lowest)} MB, slope {slope:+.3f} MB/min; "
        f"open files {warm[0].files} -> {warm[-1].files}; "
        f"gradients per CPU second {early:.2f} -> {late:.2f}; stopped in {time.monotonic() - asked:.1f} s"
    )
    assert slope < 1
    assert warm[-1].files <= samples[0].files + AT_ONCE
    assert late > 0.8 * early


def by_minute(samples: Sequence[Sample]) -> list[list[Sample]]:
    """The samples of each minute: while a checkpoint is written, a run holds a copy of all that is in it."""
    minutes = sorted({int(sample.minutes) for sample in samples})
    return [[sample for sample in samples if int(sample.minutes) == minute] for minute in minutes]


def speed(samples: Sequence[Sample]) -> float:
    """Gradients a second of processor time, which neighbours on the machine change less than time on the clock."""
    first, last = samples[0], samples[-1]
    return (last.gradients - first.gradients) / (last.cpu_seconds - first.cpu_seconds)
