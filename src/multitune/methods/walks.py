"""Several trajectories from the same slow weights: those that wait while one is in the parameters, and their mean."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor

from multitune.methods.optimizer_state import Entries
from multitune.methods.ranks import Ranks
from multitune.methods.sharded import shards
from multitune.methods.slow_weights import precise

WEIGHTS = "weights"
"""The entry of a parameter that has its value on a waiting trajectory."""


@final
class Walks:
    """The trajectories of this rank: the r-th, the (R + r)-th, ... of M.

    One is in the parameters. Each has an inner state of its own, as a worker has with PostLocalSGDOptimizer and with
    DiLoCo (arXiv 2311.08105): to average the states would triple what ranks send.

    Args:
        count: M.
        ranks: that share them.

    Attributes:
        own: the numbers of this rank's.
        waiting: trajectory -> parameter -> its inner optimizer's entries and ``"weights"``; the weights are absent of
            one that stands at phi.

    Raises:
        ValueError: M below 1, or no multiple of R.
    """

    def __init__(self, count: int, ranks: Ranks) -> None:
        if count < 1 or count % ranks.size:
            raise ValueError(
                f"trajectories={count}: at least one is needed"
                if count < 1
                else f"trajectories={count}: cannot be dealt evenly over {ranks.size} ranks; choose a multiple of that"
            )
        self.count, self.ranks = count, ranks
        self.own = range(ranks.rank, count, ranks.size)
        self.waiting: dict[int, Entries] = {}

    def after(self, trajectory: int) -> int:
        """Which of this rank's has its turn after another one."""
        return self.own[(self.own.index(trajectory) + 1) % len(self.own)]

    def at_phi(self, trajectory: int, parameters: Iterable[Tensor]) -> list[Tensor]:
        """The parameters in which one that waits stands at phi: it has made no step since, or not with these."""
        entries = self.waiting.get(trajectory, {})
        return [p for p in parameters if WEIGHTS not in entries.get(p, {})]

    @torch.no_grad()
    def leave(self, trajectory: int, parameters: Sequence[Tensor], state: Entries) -> None:
        """Let a trajectory wait that is in the parameters, with the inner optimizer's entries."""
        entries = {p: {**state.get(p, {}), WEIGHTS: p.detach().clone()} for p in parameters}
        self.waiting[trajectory] = entries | {p: dict(own) for p, own in state.items() if p not in entries}

    @torch.no_grad()
    def enter(self, trajectory: int) -> Entries | None:
        """Put a trajectory that waits into the parameters; return its inner entries, None of one that never began.

        Those of its weights that it has not are left alone.
        """
        if trajectory not in self.waiting:
            return None
        entries = self.waiting.pop(trajectory)
        there = {p: own.pop(WEIGHTS) for p, own in entries.items() if WEIGHTS in own}
        if there:
            torch._foreach_copy_(shards(there), shards(there.values()))
        return {p: own for p, own in entries.items() if own}

    def to_phi(self, *, keep_state: bool) -> None:
        """Let all that wait stand at phi, with their inner states or as if they had never begun."""
        if not keep_state:
            self.waiting.clear()
        for entries in self.waiting.values():
            for own in entries.values():
                own.pop(WEIGHTS, None)

    @torch.no_grad()
    def mean(self, now: int, slow: dict[Tensor, Tensor]) -> list[Tensor]:
        """The mean of all ranks' trajectories, of each parameter, in fp32 or better: one all-reduce.

        Args:
            now: the trajectory that is in the parameters.
            slow: parameter -> phi, where a trajectory stands that has not begun.
        """
        sums = [p.detach().to(precise(p.dtype), copy=True) for p in slow]
        for trajectory in self.own:
            if trajectory != now:
                torch._foreach_add_(shards(sums), shards(self._ends(trajectory, slow, sums)))
        self.ranks.sum_together(shards(sums))
        torch._foreach_div_(shards(sums), float(self.count))
        return sums

    def _ends(self, trajectory: int, slow: dict[Tensor, Tensor], like: Sequence[Tensor]) -> list[Tensor]:
        """Where a trajectory is, of each parameter, in the type and place of ``like``: phi, if it has not begun."""
        entries = self.waiting.get(trajectory, {})
        pairs = zip(slow.items(), like, strict=True)
        return [entries.get(p, {}).get(WEIGHTS, phi).to(other.device, other.dtype) for (p, phi), other in pairs]

    @contextmanager
    def all_here(self, parameters: Sequence[Tensor], now: Entries) -> Iterator[None]:
        """Inside, those of all ranks wait on rank 0. All ranks enter together.

        Args:
            parameters: all, in one order on all ranks.
            now: of this rank's trajectory that is in the parameters, as in ``waiting``.
        """
        if self.ranks.size == 1:
            yield
            return
        own = self.waiting
        if self.ranks.rank == 0:
            theirs = {trajectory: self._received(trajectory, parameters) for trajectory in range(1, self.count)}
            self.waiting = {m: here for m, entries in theirs.items() if (here := entries or own.get(m))}
        else:
            for trajectory in self.own:
                self._send(now if trajectory == self.own[0] else own[trajectory], parameters)
        try:
            yield
        finally:
            self.waiting = own

    def _send(self, entries: Entries, parameters: Sequence[Tensor]) -> None:
        """Send a trajectory to rank 0: what there is, then the tensors."""
        flat = [
            (number, name, value)
            for number, parameter in enumerate(parameters)
            for name, value in entries.get(parameter, {}).items()
        ]
        plain = [
            [number, name, [str(v.dtype).removeprefix("torch."), str(v.device.type), *v.shape]]
            if isinstance(v, Tensor)
            else [number, name, v]
            for number, name, v in flat
        ]
        said = torch.frombuffer(bytearray(json.dumps(plain).encode()), dtype=torch.uint8)
        self.ranks.send(torch.tensor([len(said)]), 0)
        self.ranks.send(said, 0)
        for _, _, value in flat:
            if isinstance(value, Tensor):
                self.ranks.send(value.contiguous(), 0)

    def _received(self, trajectory: int, parameters: Sequence[Tensor]) -> Entries:
        """A trajectory of another rank, as it has been sent; nothing of this rank's."""
        origin = trajectory % self.ranks.size
        if origin == 0:
            return {}
        length = self.ranks.received(torch.empty(1, dtype=torch.int64), origin)
        said = self.ranks.received(torch.empty(int(length), dtype=torch.uint8), origin)
        entries: Entries = {}
        for number, name, value in json.loads(said.numpy().tobytes()):
            parameter, held = parameters[number], value
            if isinstance(value, list):
                kind, place, *shape = value
                where = parameter.device if place != "cpu" else torch.device("cpu")
                held = self.ranks.received(torch.empty(shape, dtype=getattr(torch, kind), device=where), origin)
            entries.setdefault(parameter, {})[name] = held
        return entries
