"""What a checkpoint costs a training run: standing still while it is written, beside standing still while it is copied.

python bench/checkpoint.py [--parameters N] [--repeats N] [--folder DIR] [--threads N]

The state is that of a model with AdamW (weights and two moments, fp32). Three ways, in turn within one loop:

1. blocking: training stands still until the checkpoint is on disk, hashed and synced;
2. in a thread: it stands still for the copy in memory; then work goes on (matrix products) until the write has ended;
3. the work alone, to see how much the thread takes from it.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from multitune.results.digests import Digests
from multitune.training.checkpoint import Progress, RunState, flatten, write
from multitune.training.checkpoint_writer import CheckpointWriter, Written

LARGEST = 50_000_000
"""Elements of a tensor, as in an embedding matrix."""


def state_of(parameters: int) -> RunState:
    """The state of a run, but for what is small."""
    sizes = [LARGEST] * (parameters // LARGEST) + [parameters % LARGEST]
    three = [{f"layer.{n}": torch.randn(size) for n, size in enumerate(sizes) if size} for _ in range(3)]
    weights, first, second = three
    update = {"optimizer": {"exp_avg": first, "exp_avg_sq": second}}
    return RunState(Progress(), "", Digests(), "", weights=weights, update=update, batches={})


def worked(until: float, matrix: Tensor) -> float:
    """Matrix products a second, until a moment of ``time.monotonic``."""
    began, count = time.monotonic(), 0
    while time.monotonic() < until:
        matrix @ matrix
        count += 1
    return count / (time.monotonic() - began)


def measure(state: RunState, folder: Path, repeats: int) -> dict[str, list[float]]:
    """Seconds and rates of each repetition; the first, which gets the memory and warms the disk, is dropped."""
    found: dict[str, list[float]] = {"blocking": [], "copy": [], "write": [], "beside": [], "alone": []}
    matrix, told = torch.randn(500, 500), list[Written]()
    with CheckpointWriter(folder / "thread", told.append) as writer:
        for _ in range(repeats + 1):
            began = time.monotonic()
            write(flatten(state), folder / "blocking")
            found["blocking"].append(time.monotonic() - began)
            began = time.monotonic()
            writer.save(state)
            found["copy"].append(time.monotonic() - began)
            found["beside"].append(worked(time.monotonic() + 0.8 * found["blocking"][-1], matrix))
            writer.wait()
            found["write"].append(told[-1].seconds)
            found["alone"].append(worked(time.monotonic() + 2, matrix))
    return {name: values[1:] for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parameters", type=int, default=280_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder = Path(tempfile.mkdtemp(dir=arguments.folder))
    try:
        state = state_of(arguments.parameters)
        found = {name: statistics.median(values) for name, values in measure(state, folder, arguments.repeats).items()}
        size = flatten(state).bytes
    finally:
        shutil.rmtree(folder)
    table = Table("training stands still", "seconds", "ratio", title=f"A checkpoint of {size / 1e9:.2f} GB")
    table.add_row("while it is written", f"{found['blocking']:.2f}", "1.00")
    table.add_row(
        "while it is copied, a thread writes", f"{found['copy']:.2f}", f"{found['copy'] / found['blocking']:.3f}"
    )
    Console().print(table)
    share = found["beside"] / found["alone"]
    print(f"the thread writes for {found['write']:.2f} s; work beside it: {share:.2f} of its speed")


if __name__ == "__main__":
    main()
