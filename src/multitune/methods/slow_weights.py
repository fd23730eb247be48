"""The slow weights phi of a two-loop method, beside the fast weights theta that the parameters hold."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import final

import torch
from torch import Tensor
from torch.optim import Optimizer

from multitune.methods.base import NonFiniteError
from multitune.methods.sharded import add_over_ranks, shards


class NonFiniteWeightsError(NonFiniteError):
    """Fast weights are NaN or infinite where the slow ones are to follow them; the slow ones are as they were."""

    def __init__(self) -> None:
        self.what, self.tasks, self.places = "weights", [], None
        ValueError.__init__(
            self,
            "the fast weights are NaN or infinite, so no outer step was made: eval() shows the slow ones of the last "
            "outer step; lower the learning rate",
        )


@final
class SlowWeights:
    """A copy of each parameter, in fp32 or better, and the ways in which the two meet.

    Copies of bf16 and fp16 parameters are fp32: an outer step is often smaller than half a unit in the last place of
    such a parameter, and would be rounded away. Copies of sharded parameters (DTensor) are sharded alike, and each
    process computes on its own shard.

    Args:
        device: where the copies live; None: beside their parameters.

    Attributes:
        copies: parameter -> its copy, which stays the same tensor: an outer optimizer holds it, too.
        unrounded: parameter -> phi, while a parameter that cannot hold phi exactly shows it.
    """

    def __init__(self, device: torch.device | str | None = None) -> None:
        self._device = device
        self.copies: dict[Tensor, Tensor] = {}
        self.unrounded: dict[Tensor, Tensor] = {}

    def add(self, values: Mapping[Tensor, Tensor]) -> list[Tensor]:
        """Copy the values of those parameters that have no copy yet; return the new copies."""
        new = [parameter for parameter in values if parameter not in self.copies]
        self.copies |= {parameter: self.copy_of(parameter, values[parameter]) for parameter in new}
        return [self.copies[parameter] for parameter in new]

    def copy_of(self, parameter: Tensor, value: Tensor) -> Tensor:
        """A copy of ``value`` that has the place and type of a slow copy of ``parameter``."""
        device = parameter.device if self._device is None else self._device
        return value.detach().to(device, precise(parameter.dtype), copy=True)

    @torch.no_grad()
    def follow(self, ends: Sequence[Tensor], eta: float) -> None:
        """phi <- phi - eta (phi - end).

        The interpolation is exact at eta = 1, where the formula as it stands would round.

        Args:
            ends: where the inner loop has led, one for each copy.
            eta: outer learning rate, in [0, 1].
        """
        torch._foreach_lerp_(shards(self.copies.values()), shards(self._as_copies(ends)), eta)

    @torch.no_grad()
    def step(self, outer: Optimizer, ends: Sequence[Tensor], eta: float) -> None:
        """Make a step of an optimizer over the copies, with phi - end as gradient.

        Args:
            outer: over the copies.
            ends: where the inner loop has led, one for each copy. Their values are lost: their storage holds the
                gradient, so that there is no third copy.
            eta: the optimizer's learning rate in this step.
        """
        gradients = self._as_copies(ends)
        torch._foreach_neg_(shards(gradients))
        torch._foreach_add_(shards(gradients), shards(self.copies.values()))
        for copy, gradient in zip(self.copies.values(), gradients, strict=True):
            copy.grad = gradient
        for group in outer.param_groups:
            group["lr"] = eta
        outer.step()
        outer.zero_grad()

    @torch.no_grad()
    def restart(self, parameters: Collection[Tensor] | None = None) -> None:
        """theta <- phi, of all parameters or of some: the next trajectory begins at the slow weights."""
        begin = self.copies if parameters is None else parameters
        if begin:
            torch._foreach_copy_(shards(begin), shards(self.copies[p] for p in begin))

    @torch.no_grad()
    def show(self) -> None:
        """Let the parameters hold phi, and the copies theta.

        They trade places one by one, so that there is no third copy, but of parameters that cannot hold phi exactly.
        """
        for parameter, copy in self.copies.items():
            if parameter.dtype != copy.dtype:
                self.unrounded[parameter] = copy.clone()
            _trade_places(parameter, copy)

    @torch.no_grad()
    def hide(self) -> None:
        """The reverse of ``show``: theta comes back bitwise, and so does phi."""
        for parameter, copy in self.copies.items():
            _trade_places(parameter, copy)
            if parameter in self.unrounded:
                copy.copy_(self.unrounded.pop(parameter))

    def _as_copies(self, ends: Sequence[Tensor]) -> list[Tensor]:
        """``ends`` with the type and place of the copies: the same tensors where they have these already."""
        return [end.detach().to(copy.device, copy.dtype) for end, copy in zip(ends, self.copies.values(), strict=True)]


def precise(dtype: torch.dtype) -> torch.dtype:
    """fp32 for a type of lower precision, else the type itself."""
    return torch.promote_types(dtype, torch.float32)


@torch.no_grad()
def require_finite(weights: Iterable[Tensor]) -> None:
    """Make sure that no weight is NaN or infinite, by one pass and one wait for the device.

    Raises:
        NonFiniteWeightsError: some are; of sharded weights, on any rank.
    """
    given = list(weights)
    # An empty shard has no largest entry.
    largest = torch._foreach_norm([shard for shard in shards(given) if shard.numel()], torch.inf)
    bad = torch.zeros(())
    if largest:
        bad = torch.stack([~norm.isfinite().to(largest[0].device) for norm in largest]).any().float()
    if add_over_ranks(bad, given):
        raise NonFiniteWeightsError


def _trade_places(one: Tensor, other: Tensor) -> None:
    a, b = shards([one, other])
    held = a.clone()
    a.copy_(b)
    b.copy_(held)
