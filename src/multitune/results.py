"""What a run reports: results.json, its versions and its peak memory."""

import json
import platform
import resource
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from multitune.atomic import write_text

Scores = dict[str, dict[str, float]]
"""Language -> {metric: percent}."""

FILE = "results.json"


@dataclass(frozen=True)
class RunResult:
    """One finished run, as its results.json has it; scores in percent.

    Attributes:
        budget: gradient computations spent.
        metric: the score that ``average`` is of, unweighted over languages; None where there is no such language.
        drift: L2 distance of the shipped weights from the pretrained ones, heads excluded.
        seconds: of training, validations included, over all sessions of the run.
        shipped: which weights: ``select``, at how many ``gradients``, and their ``dev`` average.
        dropped: language -> dev and test records left out because training never shows their label.
        skipped: language -> bad records that the recipe's ``skip_bad`` left out.
    """

    method: str
    seed: int
    budget: int
    metric: str
    seen: Scores
    unseen: Scores
    average: dict[str, float | None]
    drift: float
    seconds: float
    peak_memory_bytes: int
    shipped: dict[str, Any]
    dropped: dict[str, int]
    versions: dict[str, str]
    skipped: dict[str, int] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write results.json, whole or not at all."""
        write_json(folder / FILE, asdict(self))

    @staticmethod
    def read(folder: Path) -> "RunResult":
        """Read a run folder's results.json."""
        return RunResult(**json.loads((folder / FILE).read_text(encoding="utf-8")))


def mean(scores: Mapping[str, Mapping[str, float]], metric: str) -> float | None:
    """The unweighted mean of a metric over languages; None without languages."""
    return sum(score[metric] for score in scores.values()) / len(scores) if scores else None


def write_json(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def versions() -> dict[str, str]:
    """Of Python and the packages that decide a run's numbers."""
    packages = ("multitune", "torch", "transformers", "tokenizers", "numpy")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}


def reset_peak_memory() -> None:
    """Start measuring ``peak_memory`` anew, where the system can (Linux, CUDA)."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        with suppress(OSError):  # some containers forbid it; then the peak is that of the whole process
            clear.write_text("5")


def peak_memory() -> int:
    """The most bytes that this process (on CUDA: its device) has held since the reset."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
