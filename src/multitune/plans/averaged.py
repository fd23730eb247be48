"""Weight averaging around any method: what ships is the average of the weights that the method would ship."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from multitune.methods.averaging import WeightAverage
from multitune.methods.base import NonFiniteError
from multitune.methods.losses import Loss
from multitune.methods.sharded import shards
from multitune.methods.swep import EmbeddingModel
from multitune.plans.update import Setup, Update

ONE_VALUE = (
    "average: snapshots took one value, that at the end, so that the last weights ship; validate_every must be below "
    "the budget for more"
)


class AveragedUpdate(Update):
    """Another update with an average of its own; training itself goes on as without.

    Args:
        setup: of the run.
        inner: the method.
        average: over the run's parameters; its unit of time is a gradient computation.
        interval: gradient computations between two values that the average takes in; None takes in every change of the
            weights to ship (an ordinary method's steps, a two-loop method's outer steps). The weights at the end of the
            budget are the last value in both cases.
    """

    def __init__(self, setup: Setup, inner: Update, average: WeightAverage, interval: int | None) -> None:
        self._inner, self._average, self._interval = inner, average, interval
        self._parameters: list[Tensor] = [weight for _, weight in setup.parameters]
        self._budget, self._gradients, self._taken_at = setup.budget, 0, 0
        self.cost, self.smallest_step, self.notes = inner.cost, inner.smallest_step, inner.notes
        if interval is not None and interval >= setup.budget > 1:
            self.notes = (*self.notes, ONE_VALUE)
        self.own_weights = inner.own_weights

    def draw(self, most: int) -> list[int]:
        return self._inner.draw(most)

    def optimizer_steps(self, batches: int) -> int:
        return self._inner.optimizer_steps(batches)

    def loss(
        self,
        model: EmbeddingModel,
        inputs: Mapping[str, Tensor],
        negative_log_likelihood: Callable[[Any], Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        return self._inner.loss(model, inputs, negative_log_likelihood, generator)

    def step(self, drawn: Sequence[int], losses: Iterable[Loss]) -> list[float]:
        changed = False
        try:
            values = self._inner.step(drawn, losses)
            changed = self._inner.ships_anew
            return values
        except NonFiniteError as error:  # what is skipped is spent too
            changed = error.places is not None and self._inner.ships_anew
            raise
        finally:
            self._count(self.cost * len(drawn), changed)

    def _count(self, spent: int, changed: bool) -> None:
        before = self._gradients
        self._gradients += spent
        due = changed if self._interval is None else self._gradients // self._interval > before // self._interval
        ends = self._budget - self._gradients < self.smallest_step  # finish() takes in the weights of the last step
        if due and not ends:
            self._take()

    @contextmanager
    def shipped_weights(self) -> Iterator[None]:
        with self._inner.shipped_weights():
            if not self._taken_at:
                yield
                return
            with self._average.weights():
                yield

    def advance(self, learning_rate: float, progress: float) -> None:
        self._inner.advance(learning_rate, progress)

    @torch.no_grad()
    def finish(self) -> None:
        self._inner.finish()
        self._take()
        with self._average.weights():
            averaged = [weight.clone() for weight in self._parameters]
        torch._foreach_copy_(shards(self._parameters), shards(averaged))

    def state_dict(self) -> dict[str, Any]:
        own = {"average": self._average.state_dict(), "gradients": self._gradients, "taken_at": self._taken_at}
        return {"inner": self._inner.state_dict()} | own

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._inner.load_state_dict(state["inner"])
        self._average.load_state_dict(state["average"])
        self._gradients, self._taken_at = state["gradients"], state["taken_at"]

    def _take(self) -> None:
        with self._inner.shipped_weights():
            self._average.update(self._gradients - self._taken_at)
        self._taken_at = self._gradients
