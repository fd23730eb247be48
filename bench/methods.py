"""What combining costs, beside TorchJD and the floor, in one run.

python bench/methods.py [--columns N] [--layers N] [--repeats N] [--threads N]

1. A training step of a small transformer, eight tasks with a batch each: joint, PCGrad, GradVac; a hand-made PCGrad
   (one torch.autograd.grad a task into a flat matrix); TorchJD's documented backward and jac_to_grad; LibMTL's PCGrad,
   where it is installed (pip install --no-deps LibMTL==1.1.5).
2. Combining a ready [8, N] fp32 matrix, beside reading it twice.
3. GradVac of the same matrix in 200 parameter groups, beside the whole as one.

All the rows of a table are timed in turn within one loop; the figures are medians.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
import torchjd.aggregation
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torchjd.autojac import backward, jac_to_grad

from multitune.methods.base import CombiningMethod, GramMethod
from multitune.methods.combiner import Combiner
from multitune.methods.gradvac import GradVac
from multitune.methods.gram import combine_rows, gram_matrices
from multitune.methods.groups import BLOCK
from multitune.methods.joint import Joint
from multitune.methods.pcgrad import PCGrad

TASKS, BATCH, LENGTH, WIDTH, WORDS = 8, 16, 32, 256, 8000


def libmtl() -> Any:
    """LibMTL's weightings, or None where it is not installed."""
    found = find_spec("LibMTL")
    if found is None or found.submodule_search_locations is None:
        return None
    # Its top module imports torchvision, for models that are not needed here.
    package = ModuleType("LibMTL")
    package.__path__ = found.submodule_search_locations
    sys.modules["LibMTL"] = package
    return import_module("LibMTL.weighting")


LIBMTL = libmtl()


class Transformer(nn.Module):
    def __init__(self, layers: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(WORDS, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, 10)

    def loss(self, words: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.head(self.layers(self.words(words)).mean(1)), labels)


Losses = Callable[[], Iterator[Tensor]]
Gradient = Callable[[Transformer, Losses], Callable[[], object]]
"""Given a model and its tasks' losses: what computes a step's gradient into ``.grad``."""


def transformer_steps(layers: int) -> dict[str, Callable[[], object]]:
    """One training step each, of a model and an optimizer of its own."""
    generator = torch.Generator().manual_seed(0)
    batches = [
        (torch.randint(WORDS, (BATCH, LENGTH), generator=generator), torch.randint(10, (BATCH,), generator=generator))
        for _ in range(TASKS)
    ]

    def step_of(gradient: Gradient) -> Callable[[], object]:
        model = Transformer(layers)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        compute = gradient(model, lambda: (model.loss(*batch) for batch in batches))
        return lambda: (compute(), optimizer.step())

    contenders: dict[str, Gradient] = {
        "joint, plain torch": plain,
        "joint, Combiner": combined(Joint()),
        "PCGrad": combined(PCGrad()),
        "GradVac": combined(GradVac(TASKS)),
        "GradVac, all_matrix": combined(GradVac(TASKS), "all_matrix"),
        "PCGrad by hand: flat matrix": by_hand,
        "PCGrad, TorchJD backward": torchjds,
    }
    if LIBMTL is not None:
        contenders["PCGrad, LibMTL"] = libmtls
    return {name: step_of(gradient) for name, gradient in contenders.items()}


def plain(model: Transformer, losses: Losses) -> Callable[[], object]:
    def gradient() -> None:
        model.zero_grad()
        for loss in losses():
            loss.backward()

    return gradient


def combined(method: CombiningMethod, groups: str = "whole_model") -> Gradient:
    def make(model: Transformer, losses: Losses) -> Callable[[], object]:
        combiner = Combiner(model.named_parameters(), method, groups=groups)

        def gradient() -> None:
            model.zero_grad()
            combiner.backward(losses(), tasks=range(TASKS))

        return gradient

    return make


def by_hand(model: Transformer, losses: Losses) -> Callable[[], object]:
    parameters, method = list(model.parameters()), PCGrad()

    def gradient() -> None:
        gradients = [torch.autograd.grad(loss, parameters) for loss in losses()]
        matrix = torch.stack([torch.cat([g.flatten() for g in row]) for row in gradients])
        direction = method.weights(matrix @ matrix.T).float() @ matrix
        nn.utils.vector_to_parameters(direction, [_gradient_holder(p) for p in parameters])

    return gradient


def torchjds(model: Transformer, losses: Losses) -> Callable[[], object]:
    parameters, aggregator = list(model.parameters()), torchjd.aggregation.PCGrad()

    def gradient() -> None:
        model.zero_grad()
        backward(list(losses()))
        jac_to_grad(parameters, aggregator)

    return gradient


def libmtls(model: Transformer, losses: Losses) -> Callable[[], object]:
    assert LIBMTL is not None
    weighting = LIBMTL.PCGrad()
    weighting.task_num, weighting.device, weighting.rep_grad = TASKS, "cpu", False
    weighting.get_share_params = model.parameters
    # It writes into the gradients that it has just cleared: with torch's default, None, it would fail.
    weighting.zero_grad_share_params = lambda: model.zero_grad(set_to_none=False)
    return lambda: weighting.backward(list(losses()))


def libmtl_of(rows: Tensor) -> Callable[[], object]:
    """LibMTL's PCGrad of ready gradients: its own ``backward``, without the passes through a model before and after."""
    assert LIBMTL is not None
    weighting = LIBMTL.PCGrad()
    weighting.task_num, weighting.rep_grad = TASKS, False
    weighting._compute_grad_dim = lambda: None
    weighting._compute_grad = lambda losses, mode: rows
    weighting._reset_grad = lambda gradient: None
    return lambda: weighting.backward([None] * TASKS)


def _gradient_holder(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.empty_like(parameter)
    return parameter.grad


def matrix_combinations(rows: Tensor) -> dict[str, Callable[[], object]]:
    whole, out = [rows.shape[1] // BLOCK], torch.empty_like(rows[0])
    aggregator = torchjd.aggregation.PCGrad()
    contenders: dict[str, Callable[[], object]] = {
        "reading the matrix twice": lambda: (rows.sum(), rows.sum()),
        "PCGrad": lambda: combine(PCGrad(), rows, whole, out),
        "GradVac": lambda: combine(GradVac(TASKS), rows, whole, out),
        "PCGrad, TorchJD": lambda: aggregator(rows),
        "of PCGrad: the Gram matrix": lambda: gram_matrices(rows, whole),
        "of PCGrad: the combination": lambda: combine_rows(rows, torch.ones(1, TASKS), whole, out),
    }
    if LIBMTL is not None:
        contenders["PCGrad, LibMTL"] = libmtl_of(rows)
    return contenders


def group_combinations(rows: Tensor, groups: int = 200) -> dict[str, Callable[[], object]]:
    blocks, out = rows.shape[1] // BLOCK, torch.empty_like(rows[0])
    groups = min(groups, blocks)
    sizes = [blocks // groups + (group < blocks % groups) for group in range(groups)]
    theirs = [torchjd.aggregation.GradVac() for _ in range(groups)]
    parts = rows.split([size * BLOCK for size in sizes], 1)
    return {
        "GradVac, whole model": lambda: combine(GradVac(TASKS), rows, [blocks], out),
        f"GradVac, {groups} groups": lambda: combine(GradVac(TASKS), rows, sizes, out),
        f"GradVac, {groups} groups, TorchJD": lambda: [a(part) for a, part in zip(theirs, parts, strict=True)],
    }


def combine(method: GramMethod, rows: Tensor, blocks: Sequence[int], out: Tensor) -> None:
    method.for_groups(len(blocks))
    combine_rows(rows, method.weights(gram_matrices(rows, blocks)), blocks, out)


def medians(contenders: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Seconds; the first round, which allocates, is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def show(title: str, contenders: dict[str, Callable[[], object]], repeats: int) -> None:
    """A table in which the first contender is 1.00."""
    times = medians(contenders, repeats)
    first = next(iter(times.values()))
    table = Table("", "ms", "ratio", title=title)
    for name, seconds in times.items():
        table.add_row(name, f"{1000 * seconds:.1f}", f"{seconds / first:.2f}")
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--columns", type=int, default=50_000_000)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    show(f"A step: transformer, {TASKS} tasks", transformer_steps(arguments.layers), arguments.repeats)
    columns = -(-arguments.columns // BLOCK) * BLOCK
    rows = torch.randn(TASKS, columns, generator=torch.Generator().manual_seed(0))
    show(f"Combining a ready [{TASKS}, {columns}] fp32 matrix", matrix_combinations(rows), arguments.repeats)
    show("By parameter group", group_combinations(rows), arguments.repeats)


if __name__ == "__main__":
    main()
