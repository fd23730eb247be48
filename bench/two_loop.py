"""What the outer loop costs: Sequential Reptile over plain AdamW steps, and how much memory it adds.

Run ``python bench/two_loop.py [--width 256] [--steps 200] [--threads 2]``. Plain and wrapped steps take turns in one
process. Every fifth wrapped step ends with an outer step; from the medians of plain steps, of wrapped steps and of
those with an outer step follows the ratio for any K. A ratio of the optimizers alone bounds that of a training.
"""

import argparse
import gc
import time
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from multitune.methods.two_loop import SequentialReptile
from multitune.methods.two_loop_state import OuterOptimizer

EVERY = 5
NESTEROV = partial(SGD, momentum=0.9, nesterov=True)


def encoder(width: int) -> nn.Module:
    layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)


def training_step(model: nn.Module, optimizer: Optimizer, batch: Tensor) -> tuple[float, float]:
    """Seconds of the whole step, and of the optimizer in it."""
    begin = time.perf_counter()
    optimizer.zero_grad()
    # Not the mean square, which the last layer norm keeps constant: the time would be that of denormal moments.
    (model(batch) - batch.sin()).square().mean().backward()
    middle = time.perf_counter()
    optimizer.step()
    end = time.perf_counter()
    return end - begin, end - middle


def live_bytes() -> int:
    """Bytes of all tensors that are alive."""
    gc.collect()
    tensors = [t for t in gc.get_objects() if issubclass(type(t), Tensor)]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def measure(width: int, steps: int, batch: Tensor, outer: OuterOptimizer | None) -> None:
    models = [encoder(width), encoder(width)]
    plain, inner = (AdamW(model.parameters(), lr=1e-4) for model in models)
    for model, optimizer in zip(models, (plain, inner), strict=True):
        training_step(model, optimizer, batch)
    before = live_bytes()
    wrapped = SequentialReptile(inner, EVERY, outer_optimizer=outer)
    for _ in range(EVERY):
        training_step(models[1], wrapped, batch)
    copies = (live_bytes() - before) / sum(4 * p.numel() for p in models[1].parameters())

    a, b = [], []
    for _ in range(steps):
        a.append(training_step(models[0], plain, batch))
        b.append(training_step(models[1], wrapped, batch))
    for part, name in enumerate(("training", "optimizer alone")):
        plain_step = median(times[part] for times in a)
        inner_step = median(times[part] for i, times in enumerate(b, start=1) if i % EVERY)
        outer_step = median(times[1] for times in b[EVERY - 1 :: EVERY]) - median(
            times[1] for i, times in enumerate(b, start=1) if i % EVERY
        )
        ratios = [(inner_step + outer_step / k) / plain_step for k in (10, 50, 1000)]
        cells = [name, *(f"{1000 * t:.2f}" for t in (plain_step, outer_step)), *(f"{r:.4f}" for r in ratios)]
        print("|", "Nesterov" if outer else "SGD", "|", " | ".join(cells), f"| {copies:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    size = sum(p.numel() for p in encoder(arguments.width).parameters())
    print(f"encoder of {size / 1e6:.1f} M weights, fp32, {arguments.threads} threads, torch {torch.__version__}\n")
    print("| outer | step | plain, ms | outer step, ms | ratio, K = 10 | K = 50 | K = 1000 | copies added |")
    print("|---|---|---|---|---|---|---|---|")
    batch = torch.randn(8, 32, arguments.width)
    for outer in (None, NESTEROV):
        measure(arguments.width, arguments.steps, batch, outer)


if __name__ == "__main__":
    main()
