"""accelerate's checkpoints of a hand-written loop: of optimizers with slow weights, combiners and samplers."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.state import AcceleratorState, GradientState
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

import multitune as mt
from multitune.hf import OneTaskBatches
from multitune.methods import Fish, GradVac, Linear, Lookahead, Reptile, SystematicSampler, TwoLoop, uniform

DRAW = torch.Generator().manual_seed(0)
ROWS: Any = [
    {"language": language, "x": torch.randn(4, generator=DRAW)}
    for language, size in (("de", 20), ("fi", 9), ("sw", 7))
    for _ in range(size)
]
EPOCH, END = 9, 22
"""Batches of an epoch, and of the whole training: not a whole number of inner loops."""
NESTEROV = partial(SGD, momentum=0.9, nesterov=True)
LOOPS: dict[str, Callable[[Optimizer], TwoLoop]] = {
    "sequential_reptile": lambda inner: mt.SequentialReptile(inner, inner_steps=6, outer_lr=0.5),
    "schedules": lambda inner: mt.SequentialReptile(inner, Linear(2, 8), Linear(0.5, 1.0)),
    "trajectories": lambda inner: mt.SequentialReptile(inner, inner_steps=3, outer_lr=0.5, trajectories=2),
    "lookahead, reset": lambda inner: Lookahead(inner, inner_steps=6, outer_lr=0.5, inner_state="reset"),
    "fish, nesterov": lambda inner: Fish(inner, inner_steps=6, outer_lr=0.7, outer_optimizer=NESTEROV),
    "reptile, carry": lambda inner: Reptile(inner, inner_steps=2, outer_lr=0.5, num_tasks=3, inner_state="carry"),
}


@pytest.fixture(autouse=True)
def _nothing_is_left_in_accelerate() -> Iterator[None]:
    """A loop that stops within an epoch leaves its loader in a state that all accelerators share."""
    yield
    GradientState._reset_state()
    AcceleratorState._reset_state(reset_partial_state=True)


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.2), nn.Linear(5, 1)).to(dtype)


class Loop:
    """A loop as the docs have it, with dropout and a scheduler.

    Args:
        two_loop: what is put around AdamW.
        dtype: of the weights.
        registered: the optimizer and its scheduler are registered for checkpoints; otherwise they are prepared.
    """

    def __init__(
        self,
        two_loop: Callable[[Optimizer], TwoLoop],
        dtype: torch.dtype = torch.float32,
        *,
        registered: bool = False,
    ) -> None:
        self.accelerator, self.dtype = Accelerator(cpu=True), dtype
        loader = DataLoader(ROWS, batch_sampler=OneTaskBatches(ROWS, "language", 4), generator=torch.Generator())
        self.model, self.loader = self.accelerator.prepare(network(dtype), loader)
        self.optimizer: Any = two_loop(AdamW(self.model.parameters(), lr=0.02))
        self.outer, self.scheduler = self.optimizer, LambdaLR(self.optimizer, lambda step: 1 - step / (2 * END))
        if registered:
            self.accelerator.register_for_checkpointing(self.outer, self.scheduler)
        else:
            self.optimizer, self.scheduler = self.accelerator.prepare(self.outer, self.scheduler)

    def train(self, begin: int, end: int) -> None:
        """The batches from ``begin`` on, counted over all epochs."""
        self.optimizer.train()
        while begin < end:
            epoch, done = divmod(begin, EPOCH)
            self.loader.set_epoch(epoch)
            for batch in islice(skip_first_batches(self.loader, done), end - begin):
                self.step(batch["x"].to(self.dtype), begin / END)
                begin += 1

    def step(self, x: Tensor, progress: float) -> None:
        self.outer.progress = progress
        self.accelerator.backward(self.model(x).square().mean())
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()

    def save(self, folder: Path, shows: str) -> None:
        if shows == "slow":
            self.optimizer.eval()
        self.accelerator.save_state(str(folder))


def check_alike(one: Loop, other: Loop) -> None:
    """Equal to the bit, before and after the last inner loop is closed."""
    for _ in range(2):
        assert equal(one.model.state_dict(), other.model.state_dict())
        assert equal(one.outer.state_dict(), other.outer.state_dict())
        one.outer.close_inner_loop()
        other.outer.close_inner_loop()


def equal(one: Any, other: Any) -> bool:
    """Whether two states are alike to the bit."""
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


@pytest.mark.parametrize("stop", [0, 8, 13], ids=["before", "within a loop", "within an epoch"])
@pytest.mark.parametrize("shows", ["fast", "slow"])
@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_goes_on_to_the_same_bits(tmp_path: Path, name: str, shows: str, stop: int) -> None:
    """Whatever the model holds when the state is saved, and whatever the loop has that loads it."""
    whole, again = Loop(LOOPS[name]), Loop(LOOPS[name])
    whole.train(0, stop)
    whole.save(tmp_path, shows)
    whole.train(stop, END)
    again.train(0, 5)
    again.optimizer.eval()
    again.accelerator.load_state(str(tmp_path))
    assert again.outer.parameters_hold == (shows if stop else "fast")  # before the first step both are the same
    again.train(stop, END)
    check_alike(whole, again)


@pytest.mark.parametrize("shows", ["fast", "slow"])
@pytest.mark.parametrize("registered", [False, True])
def test_slow_weights_of_a_bf16_model_are_restored_unrounded(tmp_path: Path, registered: bool, shows: str) -> None:
    whole, again = (Loop(LOOPS["sequential_reptile"], torch.bfloat16, registered=registered) for _ in range(2))
    whole.train(0, 13)
    whole.save(tmp_path, shows)
    whole.train(13, END)
    again.accelerator.load_state(str(tmp_path))
    again.train(13, END)
    check_alike(whole, again)


class Rows:
    """A loop that combines the gradients of two tasks a step."""

    def __init__(self) -> None:
        self.accelerator = Accelerator(cpu=True)
        self.model = network()
        self.combiner = mt.Combiner(self.model.named_parameters(), GradVac(num_tasks=3, seed=0))
        self.sampler = SystematicSampler(uniform(3), generator=torch.Generator().manual_seed(0))
        self.prepared, self.optimizer = self.accelerator.prepare(self.model, AdamW(self.model.parameters(), lr=0.02))
        self.accelerator.register_for_checkpointing(self.combiner, self.sampler)

    def train(self, steps: int) -> None:
        for _ in range(steps):
            tasks = self.sampler.draw(2)
            for task in tasks:
                x = torch.stack([row["x"] for row in ROWS[4 * task : 4 * task + 4]])
                loss = (self.prepared(x) - task).square().mean()
                self.accelerator.backward(loss)
                self.combiner.collect(task, loss)
            self.combiner.apply()
            self.optimizer.step()
            self.optimizer.zero_grad()


def test_a_combiner_and_a_sampler_that_are_registered_go_on_to_the_same_bits(tmp_path: Path) -> None:
    whole, again = Rows(), Rows()
    whole.train(7)
    whole.accelerator.save_state(str(tmp_path))
    whole.train(6)
    again.train(2)
    again.accelerator.load_state(str(tmp_path))
    again.train(6)
    assert equal(whole.model.state_dict(), again.model.state_dict())
    assert equal(whole.combiner.state_dict(), again.combiner.state_dict())
    assert whole.sampler.draw(2) == again.sampler.draw(2)
