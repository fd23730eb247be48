"""Task gradients as the rows of one buffer: their ways there from `.grad`, and back."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from multitune.methods.division import division_of
from multitune.methods.groups import Layout
from multitune.methods.sharded import resembling, shards

Gradients = list[Tensor | None]
"""What `.grad` held, one a parameter."""
_MARK = "_lies_in_rows"


class Rows:
    """The buffer of the parameters that tasks share; of sharded ones, of this process's shards.

    Row 0 is the combined gradient, which `.grad` views after a step; the rows after it are the tasks'.

    Attributes:
        parameters: the shared ones.
        layout: whose columns are whose.
        division: which columns have weights of their own.
        reached: which parameters have ever had a gradient. Only theirs is left in `.grad`.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], layout: Layout) -> None:
        self.parameters, self.layout = list(parameters), layout
        self.reached = [False] * len(self.parameters)
        own = shards(self.parameters)
        self._shapes = [shard.shape for shard in own]
        self._buffer = own[0].new_empty(0, layout.width, requires_grad=False)
        self.division = division_of(layout)
        self._views: list[list[Tensor]] = []
        for parameter in self.parameters:
            if hasattr(parameter.grad, _MARK):  # an earlier buffer's: it would stay in memory as a whole
                parameter.grad = None

    @property
    def device(self) -> torch.device:
        """Where the buffer is."""
        return self._buffer.device

    @property
    def combined(self) -> Tensor:
        """Row 0, [width]."""
        return self._buffer[0]

    def row(self, number: int) -> Tensor:
        """A row of the buffer, [width]."""
        return self._buffer[number]

    def new_rows(self, count: int, width: int) -> Tensor:
        """Zeros of the buffer's kind, [count, width]."""
        return self._buffer.new_zeros(count, width)

    def tasks(self, count: int) -> Tensor:
        """The rows of the first ``count`` tasks, [count, width]."""
        return self._buffer[1 : count + 1]

    def reserve(self, count: int, *, kept: int = 0) -> None:
        """Have ``count`` rows at least. Where there are fewer, only the first ``kept`` keep what is in them."""
        if len(self._buffer) >= count:
            return
        kept = min(kept, len(self._buffer))
        old = self._buffer[:kept] if kept else self._buffer[:0].clone()
        self._buffer, self._views = old, []  # without rows to keep, their memory goes before more is taken
        self._buffer = old.new_zeros(count, self.layout.width)  # the padding stays zero from here on
        self._buffer[:kept] = old
        self._views = [self._parameter_views(row) for row in self._buffer]

    def _parameter_views(self, row: Tensor) -> list[Tensor]:
        views = [
            resembling(parameter, row[start : start + shape.numel()].view(shape))
            for start, shape, parameter in zip(self.layout.starts, self._shapes, self.parameters, strict=True)
        ]
        for view in views:
            setattr(view, _MARK, True)
        return views

    def attach(self, row: int, *, add: bool) -> None:
        """Point `.grad` at a row, so that autograd adds into it; zero the row first, unless ``add``."""
        if not add:
            self._buffer[row].zero_()
        for parameter, view, reached in zip(self.parameters, self._views[row], self.reached, strict=True):
            parameter.grad = view if reached else None

    @torch.no_grad()
    def absorb(self, row: int, *, add: bool, scale: float = 1.0) -> None:
        """Move `.grad`, times ``scale``, to a row, onto what is there (``add``) or in its place; `.grad` is None then.

        A gradient that is in the row already, since `attach` pointed there, stays. One that came apart from it (a
        parameter's first, or DistributedDataParallel's own memory) holds all that it has to, and replaces it.
        """
        gradients = self._detach()
        views = self._views[row]
        apart = [i for i, gradient in enumerate(gradients) if gradient is not views[i]]
        there = [views[i] for i in range(len(views)) if gradients[i] is views[i]]
        if not add and apart:
            torch._foreach_zero_(shards(views[i] for i in apart))
        if scale != 1 and there:
            torch._foreach_mul_(shards(there), scale)
        given = [(views[i], gradient) for i in apart if (gradient := gradients[i]) is not None]
        if given:
            torch._foreach_add_(*map(shards, zip(*given, strict=True)), alpha=scale)
        self.reached = [old or gradient is not None for old, gradient in zip(self.reached, gradients, strict=True)]

    def set_aside(self) -> Gradients:
        """Take what is in `.grad` away, to be given back; what lies in the buffer is copied."""
        views = self._views[0] if self._views else [None] * len(self.parameters)
        gradients = self._detach()
        return [
            gradient.clone() if gradient is not None and gradient is view else gradient
            for gradient, view in zip(gradients, views, strict=True)
        ]

    def put_back(self, gradients: Gradients) -> None:
        """Let `.grad` be what `set_aside` took."""
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient

    @torch.no_grad()
    def leave(self, others: Gradients) -> None:
        """Leave the combined gradient in `.grad`, and ``others`` added to it."""
        for i, (parameter, view, other) in enumerate(zip(self.parameters, self._views[0], others, strict=True)):
            gradient = view if self.reached[i] else None
            if other is not None:
                gradient = other if gradient is None else gradient.add_(other)
            parameter.grad = gradient if parameter.requires_grad else None

    def row_sum(self, row: int) -> Tensor:
        """The sum of a row's columns, a scalar: NaN or infinite where one of them is."""
        return self._buffer[row].sum(dtype=self._sum_dtype)

    def zero_sum(self) -> Tensor:
        """What ``row_sum`` is where there is no gradient."""
        return torch.zeros((), dtype=self._sum_dtype, device=self.device)

    @property
    def _sum_dtype(self) -> torch.dtype:
        return torch.promote_types(self._buffer.dtype, torch.float32)

    def squared_norm(self, row: int, positions: Sequence[int]) -> Tensor:
        """The squared norm of the gradient of the parameters at ``positions``, a float64 scalar."""
        norms = torch._foreach_norm(shards(self._views[row][i] for i in positions), 2, torch.float64)
        return torch.stack(norms).square().sum()

    def add_to_combined(self, row: int, weight: float | Tensor) -> None:
        """Add a row times a weight to row 0. A weight on the device stays there, but in low precision."""
        if isinstance(weight, Tensor) and self._buffer.dtype in (torch.float32, torch.float64):
            self.combined.addcmul_(self._buffer[row], weight.to(self._buffer.dtype))
        else:
            self.combined.add_(self._buffer[row], alpha=float(weight))

    def _detach(self) -> Gradients:
        gradients: Gradients = [parameter.grad for parameter in self.parameters]
        for parameter in self.parameters:
            parameter.grad = None
        return gradients
