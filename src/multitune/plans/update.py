"""The one interface that the training loop knows: an update is a method at work, built by its plan from a setup."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from multitune.methods.base import NonFiniteError
from multitune.methods.losses import Loss, scalars
from multitune.methods.optimizer_state import load_plain, to_plain
from multitune.methods.parts import sum_gradients
from multitune.methods.ranks import Ranks
from multitune.methods.sampling import TaskSampler
from multitune.methods.sharded import global_norm, scale_to
from multitune.methods.swep import EmbeddingModel
from multitune.seeds import seeded

NamedParameters = Sequence[tuple[str, nn.Parameter]]
RATE_SHARE = "rate_share"
"""Key of an optimizer's groups that have a share of the run's learning rate; those without it have all of it."""


@dataclass(frozen=True)
class WordEmbedding:
    """Sizes of an encoder of text.

    Attributes:
        hidden_size: of its last hidden states.
        embedding_size: of its input embeddings.
    """

    hidden_size: int
    embedding_size: int


@dataclass(frozen=True)
class Setup:
    """What a run gives its method.

    Attributes:
        parameters: the weights that train, by name.
        pretrained: the names of those that pretraining left; the others are new.
        task_heads: the names of those that one task alone uses.
        embedding: of the encoder, where it is one of text.
        probabilities: the share that each task is to have of the training, float64 [tasks].
        task_weights: of the tasks in a step: "sampling" gives each its share in expectation, "equal" one weight to all.
        make_sampler: what says whose batch comes next, drawing from a generator: numbers of tasks, or 0 for the one
            stream of batches that mix them all (``Plan.mixes_tasks``).
        budget: gradient computations of the run.
        make_optimizer: the run's optimizer for some of the parameters; each call makes a new one.
        clip: largest L2 norm of an update's gradient, or None.
        seed: of the order of tasks and of whatever a method draws.
        ranks: that share the tasks of each step. Plans that say so (``Plan.shares_tasks``) take notice.
        split: that have a part of each batch, whose losses and gradients add up to the batch's.
    """

    parameters: NamedParameters
    pretrained: frozenset[str]
    task_heads: frozenset[str]
    embedding: WordEmbedding | None
    probabilities: Tensor
    task_weights: str
    make_sampler: Callable[[torch.Generator], TaskSampler]
    budget: int
    make_optimizer: Callable[[NamedParameters], Optimizer]
    clip: float | None
    seed: int
    ranks: Ranks = field(default_factory=Ranks)
    split: Ranks = field(default_factory=Ranks)

    @property
    def num_tasks(self) -> int:
        """T."""
        return len(self.probabilities)

    def sampler(self, trajectory: int = 0) -> TaskSampler:
        """Says whose batch comes next, one at a time, on one of several trajectories."""
        return self.make_sampler(self.task_generator(trajectory))

    def task_generator(self, trajectory: int = 0) -> torch.Generator:
        """The generator that draws the tasks of a trajectory."""
        return self.generator(f"tasks of trajectory {trajectory}" if trajectory else "tasks")

    def generator(self, purpose: str) -> torch.Generator:
        """A generator of the run's seed; one purpose's draws do not change another's."""
        return seeded(self.seed, purpose)


class Update(ABC):
    """One method at work: which tasks come next, and a step with their losses."""

    cost: int = 1
    """Gradient computations that each batch costs."""
    smallest_step: int = 1
    """Gradient computations of the smallest step; a budget's rest that is below it stays unspent."""
    notes: tuple[str, ...] = ()
    """What is known before the first step and has to be said with the run's scores, a sentence each."""
    own_weights: Sequence[Tensor] = ()
    """What trains beside the model's weights, by the same losses, and is no part of the model."""

    def optimizer_steps(self, batches: int) -> int:
        """Steps of the optimizer that ``step`` makes with so many batches."""
        del batches
        return 1

    @property
    def ships_anew(self) -> bool:
        """Whether the newest step has changed the weights that the method would ship."""
        return True

    @abstractmethod
    def draw(self, most: int) -> list[int]:
        """Whose batches the next step takes, in order, at most ``most``: numbers of tasks (0 for a batch of them all).

        ``most`` is what is left of the budget, ``smallest_step`` or more computations, in batches.
        """

    def loss(
        self,
        model: EmbeddingModel,
        inputs: Mapping[str, Tensor],
        negative_log_likelihood: Callable[[Any], Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        """The loss of one batch; ``negative_log_likelihood`` turns what ``model(**inputs)`` returns into a scalar.

        ``generator`` is the batch's own: what is drawn depends on no other batch.
        """
        del generator
        return negative_log_likelihood(model(**inputs))

    @abstractmethod
    def step(self, drawn: Sequence[int], losses: Iterable[Loss]) -> list[float]:
        """Backpropagate the losses of ``drawn`` one at a time, update the weights, return the losses' values.

        ``losses`` is consumed lazily, so that one graph lives at a time. Those that are functions are called by the
        rank alone that computes them.

        Raises:
            NonFiniteError: a loss or a gradient is NaN or infinite; weights and optimizer are as before. Where it has
                ``places``, only the batches there are left out.
        """

    @abstractmethod
    def shipped_weights(self) -> AbstractContextManager[None]:
        """Inside, the parameters hold the weights that the method would ship if training ended now."""

    @abstractmethod
    def advance(self, learning_rate: float, progress: float) -> None:
        """Set the learning rate, and tell schedules the share of the budget that is spent, in [0, 1]."""

    @abstractmethod
    def finish(self) -> None:
        """The budget is spent: leave the parameters at the weights to ship."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that a resume needs beside the parameters themselves."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state`` was taken; the parameters must hold the weights of that moment."""


class OptimizerUpdate(Update):
    """An update that ends in a step of an optimizer with the gradients that the parameters hold."""

    def __init__(self, setup: Setup, optimizer: Optimizer) -> None:
        self._parameters, self._split = [weight for _, weight in setup.parameters], setup.split
        self._clip, self._optimizer = setup.clip, optimizer

    def advance(self, learning_rate: float, progress: float) -> None:
        del progress
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate * group.get(RATE_SHARE, 1.0)

    def _apply(self, tasks: Sequence[int], norm: float) -> None:
        """Step with the gradients that ``tasks`` have made, whose norm was ``norm``; leave none behind."""
        if not math.isfinite(norm):
            self._optimizer.zero_grad(set_to_none=True)
            raise NonFiniteError("gradient", tasks)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def _clipped_norm(self) -> Tensor:
        """Clip the gradients; their L2 norm before that, a scalar on their device."""
        gradients = [weight.grad for weight in self._parameters if weight.grad is not None]
        norm = global_norm(gradients)
        if self._clip is not None:
            scale_to(gradients, norm, self._clip)
        return norm


class SingleBatchUpdate(OptimizerUpdate):
    """One batch a step, backpropagated as in plain training."""

    def step(self, drawn: Sequence[int], losses: Iterable[Loss]) -> list[float]:
        (given,) = losses
        terms = []
        for term in scalars(given):
            term.backward()
            terms.append(term.detach())
        if self._split.size > 1:
            sum_gradients(self._split, self._parameters)
        value, norm = self._read(torch.stack(terms).sum(), self._clipped_norm())
        if not math.isfinite(value):
            self._optimizer.zero_grad(set_to_none=True)
            raise NonFiniteError("loss", drawn)
        self._apply(drawn, norm)
        return [value]

    def _read(self, loss: Tensor, norm: Tensor) -> tuple[float, float]:
        """The sum of the ranks' losses, and the norm, which all ranks have: the device is waited for once."""
        told = norm if self._split.rank == 0 else torch.zeros_like(norm)
        total, read = self._split.sums_on_host([loss, told])
        return float(total), float(read)


class PlainUpdate(SingleBatchUpdate):
    """Plain training: a step for each batch."""

    def __init__(self, setup: Setup, optimizer: Optimizer) -> None:
        super().__init__(setup, optimizer)
        self._sampler = setup.sampler()

    def draw(self, most: int) -> list[int]:
        return self._sampler.draw(1)

    @contextmanager
    def shipped_weights(self) -> Iterator[None]:
        yield

    def finish(self) -> None:
        """Nothing to do: the parameters are what it ships."""

    def state_dict(self) -> dict[str, Any]:
        return {"sampler": self._sampler.state_dict(), "optimizer": to_plain(self._optimizer.state_dict())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._sampler.load_state_dict(state["sampler"])
        load_plain(self._optimizer, state["optimizer"])
