"""The combining methods at work: several tasks a step, one gradient (see multitune.methods.base)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from multitune.errors import UserError
from multitune.methods.base import CombiningMethod
from multitune.methods.combiner import Combiner
from multitune.methods.groups import BucketsError
from multitune.methods.joint import Joint
from multitune.methods.losses import Loss
from multitune.methods.optimizer_state import load_plain, to_plain
from multitune.methods.sampling import SystematicSampler
from multitune.methods.swep import SWEP, EmbeddingModel
from multitune.plans.update import NamedParameters, OptimizerUpdate, Setup, Update


class CombinedUpdate(OptimizerUpdate):
    """Several distinct tasks a step, in random order; their gradients are combined into one.

    Args:
        setup: of the run.
        optimizer: of its parameters.
        combiner: of their gradients.
        tasks_per_step: how many, or all where there are fewer.
        weighted: the gradients are scaled so that each task has its share in expectation, but with ``task_weights:
            equal``; False for methods that set the tasks' weights themselves.
    """

    def __init__(
        self, setup: Setup, optimizer: Optimizer, combiner: Combiner, tasks_per_step: int, *, weighted: bool = True
    ) -> None:
        super().__init__(setup, optimizer)
        self._sampler = SystematicSampler(setup.probabilities, generator=setup.generator("tasks"))
        self._combiner, self._tasks_per_step = combiner, min(tasks_per_step, setup.num_tasks)
        self._weighted = weighted and setup.task_weights == "sampling"

    def draw(self, most: int) -> list[int]:
        return self._sampler.draw(min(most, self._tasks_per_step))

    @property
    def combiner(self) -> Combiner:
        """What combines the gradients, for a loop of another kind."""
        return self._combiner

    def scales(self, drawn: Sequence[int]) -> list[float]:
        """What the gradients of a step's tasks are multiplied by, so that each task has its share."""
        return (len(drawn) * self._sampler.weights(drawn)).tolist() if self._weighted else [1.0] * len(drawn)

    def step(self, drawn: Sequence[int], losses: Iterable[Loss]) -> list[float]:
        values = self._combiner.backward(losses, tasks=drawn, scales=self.scales(drawn))
        self._apply(drawn, float(self._clipped_norm()))
        read: list[float] = values.tolist()
        return read

    @contextmanager
    def shipped_weights(self) -> Iterator[None]:
        yield

    def finish(self) -> None:
        """Nothing to do: the parameters are what it ships."""

    def state_dict(self) -> dict[str, Any]:
        return {
            "sampler": self._sampler.state_dict(),
            "optimizer": to_plain(self._optimizer.state_dict()),
            "combiner": self._combiner.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._sampler.load_state_dict(state["sampler"])
        load_plain(self._optimizer, state["optimizer"])
        self._combiner.load_state_dict(state["combiner"])


def combiner(
    setup: Setup,
    method: CombiningMethod,
    *,
    groups: str = "whole_model",
    buckets: int = 1,
    mean: bool = True,
    more: NamedParameters = (),
) -> Combiner:
    """The combiner of a run's parameters (and ``more``); ``mean`` gives a step the size of a joint one.

    Raises:
        UserError: more buckets than any parameter has rows, or for a method that reads the gradients themselves; or
            tasks share no weight.
    """
    if not more and all(name in setup.task_heads for name, _ in setup.parameters):
        raise UserError(
            "freeze: the tasks share no weights that train, so that this method has no gradients to combine; take "
            "method: sequential, or freeze less"
        )
    group = setup.ranks if setup.split.size == 1 else setup.split
    try:
        return Combiner(
            [*setup.parameters, *more],
            method,
            groups=groups,
            buckets=buckets,
            heads=[weight for name, weight in setup.parameters if name in setup.task_heads],
            reduction="mean" if mean else "sum",
            process_group=group if group.size > 1 else None,
            split_batch=setup.split.size > 1,
        )
    except BucketsError as error:
        raise UserError(f"options.{error}") from error


def combined(
    setup: Setup,
    method: CombiningMethod,
    tasks_per_step: int,
    groups: str = "whole_model",
    buckets: int = 1,
    *,
    mean: bool = True,
    weighted: bool = True,
) -> Update:
    """The update of a method with the run's optimizer; the arguments are ``combiner``'s and ``CombinedUpdate``'s."""
    made = combiner(setup, method, groups=groups, buckets=buckets, mean=mean)
    optimizer = setup.make_optimizer(setup.parameters)
    return CombinedUpdate(setup, optimizer, made, tasks_per_step, weighted=weighted)


class SWEPUpdate(CombinedUpdate):
    """A joint step with SWEP's loss. Its network trains along, unclipped, and is no part of the model that ships."""

    cost = 2
    smallest_step = 2

    def __init__(self, setup: Setup, swep: SWEP, tasks_per_step: int) -> None:
        own = [(f"swep.{name}", weight) for name, weight in swep.named_parameters()]
        optimizer = setup.make_optimizer([*setup.parameters, *own])
        super().__init__(setup, optimizer, combiner(setup, Joint(), more=own), tasks_per_step)
        self._swep, self.own_weights = swep, [weight for _, weight in own]

    def loss(
        self,
        model: EmbeddingModel,
        inputs: Mapping[str, Tensor],
        negative_log_likelihood: Callable[[Any], Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        return self._swep.loss(model, inputs, negative_log_likelihood, generator)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"swep": dict(self._swep.state_dict())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._swep.load_state_dict(state["swep"])
