"""The combine engine: task losses -> rows of one buffer -> Gram matrix -> weights -> one gradient for any optimizer."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor, nn

from multitune.methods.base import CombiningMethod, GramMethod, RowsMethod, StreamingMethod, check_finite

BLOCK = 2048
"""Columns of a block. A product of two [tasks, params] matrices is several times slower than many small ones over
column blocks of the same storage; a group's columns are padded with zeros to whole blocks."""
CHUNK = 512
"""Blocks that are converted to fp32 at a time, where the rows are bf16 or fp16."""

Loss = Tensor | Callable[[], Any] | Iterable[Any]
"""A task's loss: a scalar, a function that returns it, or several whose sum it is (micro-batches)."""
GroupName = Callable[[str], str]


def _layer(name: str) -> str:
    """The path to the first number ("encoder.layer.3"); without one, what holds the parameter's module."""
    numbered = re.match(r"(?:.*?\.)?\d+(?=\.)", name)
    return numbered[0] if numbered else name.rsplit(".", 2)[0]


GROUPS: dict[str, GroupName] = {
    "whole_model": lambda name: "model",
    "enc_dec": lambda name: "decoder" if "decoder" in name or "lm_head" in name else "encoder",
    "all_layer": _layer,
    "all_matrix": lambda name: name,
}
"""Gradient Vaccine's parameter groups: from a parameter's name to its group's."""


@dataclass(frozen=True)
class Layout:
    """Which columns of a row are whose: each group is a run of whole blocks, its parameters one after the other."""

    groups: tuple[str, ...]
    sizes: tuple[int, ...]
    """Parameters (scalars) in each group."""
    starts: tuple[int, ...]
    """First column of each parameter tensor, in the order that they were given."""

    @property
    def blocks(self) -> list[int]:
        """Blocks in each group."""
        return [-(-size // BLOCK) for size in self.sizes]

    @property
    def width(self) -> int:
        return BLOCK * sum(self.blocks)

    @property
    def columns(self) -> list[slice]:
        """Each group's columns, without the padding."""
        ends = accumulate(self.blocks, initial=0)
        return [slice(BLOCK * first, BLOCK * first + size) for first, size in zip(ends, self.sizes, strict=False)]


def lay_out(parameters: Sequence[tuple[str, nn.Parameter]], group_name: GroupName) -> Layout:
    """Columns for named parameters, grouped in the order in which their groups first appear."""
    names = [group_name(name) for name, _ in parameters]
    groups = tuple(dict.fromkeys(names))
    sizes = dict.fromkeys(groups, 0)
    within = []
    for name, (_, parameter) in zip(names, parameters, strict=True):
        within.append(sizes[name])
        sizes[name] += parameter.numel()
    layout = Layout(groups, tuple(sizes.values()), ())
    first = {group: columns.start for group, columns in zip(groups, layout.columns, strict=True)}
    starts = tuple(first[name] + offset for name, offset in zip(names, within, strict=True))
    return Layout(groups, layout.sizes, starts)


def gram_matrices(rows: Tensor, blocks: Sequence[int]) -> Tensor:
    """<g_i, g_j> by group, in one pass. rows: [tasks, BLOCK * sum(blocks)] -> [groups, tasks, tasks], float64.

    Within a block sums are in fp32 (also for bf16 rows; in float64 for float64), over the blocks in float64.
    """
    chunks = torch.split(_blocked(rows), CHUNK if _is_low(rows) else sum(blocks))
    products = torch.cat([torch.bmm(chunk, chunk.mT) for chunk in map(_compute_dtype, chunks)])
    return torch.stack([group.sum(0, dtype=torch.float64) for group in torch.split(products, list(blocks))])


def combine_rows(rows: Tensor, weights: Tensor, blocks: Sequence[int], out: Tensor) -> None:
    """sum_i w_i g_i by group, in one pass. rows: [tasks, width]; weights: [groups, tasks]; out: [width]."""
    repeats = torch.tensor(blocks, device=rows.device)
    per_block = weights.to(rows.device).repeat_interleave(repeats, 0)[:, None]
    blocked, into = _blocked(rows), out.view(-1, 1, BLOCK)
    if not _is_low(rows):
        torch.bmm(per_block.to(rows.dtype), blocked, out=into)
        return
    for weight, chunk, part in zip(*(torch.split(t, CHUNK) for t in (per_block, blocked, into)), strict=True):
        part.copy_(torch.bmm(weight.float(), chunk.float()))


def _blocked(rows: Tensor) -> Tensor:
    """[tasks, width] -> [blocks, tasks, BLOCK], a view."""
    return rows.view(len(rows), -1, BLOCK).transpose(0, 1)


def _is_low(rows: Tensor) -> bool:
    return rows.dtype in (torch.bfloat16, torch.float16)


def _compute_dtype(rows: Tensor) -> Tensor:
    return rows.float() if _is_low(rows) else rows


class Combiner:
    """Backpropagates several tasks' losses and leaves one combined gradient in `.grad`, for any torch optimizer.

        combiner = Combiner(model.named_parameters(), PCGrad(seed=0))
        for batches in loader:                                  # one batch a task
            combiner.backward((loss(model, batch) for batch in batches), tasks=range(len(batches)))
            optimizer.step()

    `.grad` is overwritten, not added to; `zero_grad` is not needed and does no harm.

    parameters: with their names (`model.named_parameters()`) where `groups` goes by name. Those that are frozen now are
    left out for good: make another Combiner after thawing any. One dtype and device.
    method: a combining method. Joint needs one gradient vector, FAMO and GradNorm two, those that read the Gram matrix
    one a task and one more. Methods that read the gradients themselves add what their library allocates.
    groups: where the method has a Gram matrix, state and weights of its own: whole_model, enc_dec, all_layer,
    all_matrix, or a function from a parameter's name to its group's. Methods with one weight a task take no notice.
    heads: parameters that get gradient from one task only. They are left out of the Gram matrix, and their gradients
    summed plainly.
    last_shared: the parameters whose gradient norms GradNorm compares, the paper's W (default: all but the heads).
    reduction: "sum" of the corrected gradients, as in the papers, or that divided by the number of tasks, "mean".

    A parameter that no task has ever reached keeps `.grad` None, as in plain training; one that this step's tasks do
    not reach, but others did, gets zeros.

    Raises ValueError for parameters that are given twice, mixed, unnamed where names are needed, or all frozen.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter] | Iterable[tuple[str, nn.Parameter]],
        method: CombiningMethod,
        *,
        groups: str | GroupName = "whole_model",
        heads: Iterable[nn.Parameter] = (),
        last_shared: Iterable[nn.Parameter] | None = None,
        reduction: Literal["sum", "mean"] = "sum",
    ) -> None:
        if reduction not in ("sum", "mean"):
            raise ValueError(f'reduction must be "sum" or "mean"; got {reduction!r}')
        group_name = _group_name(groups)
        self.method = method
        self._mean = reduction == "mean"
        self._heads = list(heads)
        shared = _shared(parameters, self._heads, named=groups not in ("whole_model", "all_matrix"))
        self._parameters = [parameter for _, parameter in shared]
        self._reached = [False] * len(shared)
        self.layout = lay_out(shared, group_name)
        self._last_shared = self._positions(last_shared)
        self._rows = self._parameters[0].new_empty(0, self.layout.width, requires_grad=False)
        self._views: list[list[Tensor]] = []
        self._scales: dict[int, float] = {}
        method.for_groups(len(self.layout.groups))

    def backward(
        self, losses: Iterable[Loss], tasks: Sequence[int] | None = None, scales: Sequence[float] | None = None
    ) -> Tensor:
        """Backpropagate each task's loss, combine, and set `.grad`. Returns the losses' values, [n], detached.

        losses: one a task, taken one at a time, so that with a generator (or functions) one graph lives at a time; each
        needs a forward pass of its own. A task's loss may be several (an iterable): gradient accumulation, their sum.
        tasks: which of the method's tasks they are (default: all, in order); needed where `losses` has no length.
        scales: [n], factors of the gradients (default: 1), such as what makes up for how often a task is drawn. The
        values are returned without them.

        Raises NonFiniteError (a ValueError) with the tasks whose loss or gradient is NaN or infinite, before the
        method's state or any parameter has changed; ValueError for losses that are not scalars with a graph, or not n.
        """
        indices = self.method.task_indices(tasks, self._count(losses, tasks))
        if not indices:
            raise ValueError("no losses to combine")
        self._scales = dict(zip(indices, scales or [1.0] * len(indices), strict=True))
        for head in self._heads:
            head.grad = None
        combine = self._stream if isinstance(self.method, StreamingMethod) else self._gather
        try:
            values, views = combine(_numbered(losses, indices), indices)
        finally:  # whatever happens, .grad must not stay on the rows
            for parameter in self._parameters:
                parameter.grad = None
        for parameter, view, reached in zip(self._parameters, views, self._reached, strict=True):
            parameter.grad = view if reached and parameter.requires_grad else None
        if self._mean:
            for gradient in (head.grad for head in self._heads if head.grad is not None):
                gradient /= len(indices)
        return values

    def state_dict(self) -> dict[str, Tensor]:
        """The method's state, and which parameters have had a gradient (theirs is never None again); tensors only."""
        own = {"reached": torch.tensor(self._reached)}
        return own | {f"method.{name}": tensor for name, tensor in self.method.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue where ``state`` was taken."""
        self._reached = state["reached"].tolist()
        prefix = "method."
        own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        self.method.load_state_dict(own)

    def _stream(self, losses: Iterator[tuple[int, Loss]], tasks: list[int]) -> tuple[Tensor, list[Tensor]]:
        """Sum the gradients as they come, each by its weight up to a common factor: row 0 the sum, row 1 a task's."""
        method = self.method
        assert isinstance(method, StreamingMethod)
        total, *spare = self._take_rows(1 if method.unweighted else 2)
        total.zero_()
        values, sums, squares, weights = [], [], [], []
        for task, loss in losses:
            values.append(self._backpropagate(loss, task, row=len(spare)))
            sums.append((spare or [total])[0].sum(dtype=torch.promote_types(total.dtype, torch.float32)))
            squares.append(self._squared_norm(1) if spare else sums[-1].new_zeros(()))
            if spare:
                check_finite("loss", values[-1][None], [task])
                weights.append(method.task_weight(task, float(values[-1])))
                total.add_(spare[0], alpha=weights[-1])
        first_bad = _first_bad(sums) if method.unweighted else None  # a running sum stays bad once it is
        check_finite("loss", torch.stack(values), tasks)
        check_finite("gradient", torch.stack(sums)[:first_bad], tasks[:first_bad])
        exact = method.weights(torch.diag(torch.stack(squares)), tasks=tasks, losses=torch.stack(values))
        factor = float(exact.sum()) / sum(weights or [1.0] * len(tasks)) / (len(tasks) if self._mean else 1)
        if factor != 1:
            total *= factor
        return torch.stack(values), self._views[0]

    def _gather(self, losses: Iterator[tuple[int, Loss]], tasks: list[int]) -> tuple[Tensor, list[Tensor]]:
        """Each task's gradient in a row of its own, then the method, then one pass into the row after the last."""
        *_, combined = self._take_rows(len(tasks) + 1)
        values = torch.stack([self._backpropagate(loss, task, row) for row, (task, loss) in enumerate(losses)])
        rows = self._rows[: len(tasks)]
        check_finite("loss", values, tasks)
        if isinstance(self.method, GramMethod):
            grams = gram_matrices(rows, self.layout.blocks)
            weights = self.method.weights(grams, tasks=tasks, losses=values)
            combine_rows(rows, weights / len(tasks) if self._mean else weights, self.layout.blocks, out=combined)
        else:
            assert isinstance(self.method, RowsMethod)
            check_finite("gradient", rows.sum(1, dtype=torch.promote_types(rows.dtype, torch.float32)), tasks)
            for group, columns in enumerate(self.layout.columns):
                combined[columns] = self.method.combine(rows[:, columns], group)
            if self._mean:
                combined /= len(tasks)
        return values, self._views[len(tasks)]

    def _backpropagate(self, loss: Loss, task: int, row: int) -> Tensor:
        """Add the gradient of `task`'s loss to a row (zeroed first, unless it is a running sum). Returns the loss."""
        views = self._views[row]
        if not (isinstance(self.method, StreamingMethod) and row == 0):
            self._rows[row].zero_()
        for parameter, view, reached in zip(self._parameters, views, self._reached, strict=True):
            parameter.grad = view if reached else None
        value = torch.zeros((), device=self._rows.device)
        for part in _parts(loss):
            if part.dim() != 0 or not part.requires_grad:
                raise ValueError(f"the loss of task {task} must be a scalar with a graph; got {part}")
            part.backward(part.new_full((), self._scales[task]))
            value = value + part.detach()
        for index, (parameter, view) in enumerate(zip(self._parameters, views, strict=True)):
            if not self._reached[index] and parameter.grad is not None:
                view += parameter.grad
                self._reached[index] = True
        return value

    def _take_rows(self, count: int) -> list[Tensor]:
        """`count` rows of the buffer, made larger where it is too small; their contents are not kept."""
        if len(self._rows) < count:
            self._rows, self._views = self._rows[:0].clone(), []  # give the memory back before taking more
            self._rows = self._rows.new_empty(count, self.layout.width)
            self._views = [self._parameter_views(row) for row in self._rows]
        return list(self._rows[:count])

    def _parameter_views(self, row: Tensor) -> list[Tensor]:
        return [
            row[start : start + parameter.numel()].view_as(parameter)
            for start, parameter in zip(self.layout.starts, self._parameters, strict=True)
        ]

    def _squared_norm(self, row: int) -> Tensor:
        views = self._views[row]
        return (
            torch.stack([torch.linalg.vector_norm(views[i], dtype=torch.float64) for i in self._last_shared])
            .square()
            .sum()
        )

    def _positions(self, parameters: Iterable[nn.Parameter] | None) -> list[int]:
        position = {id(parameter): index for index, parameter in enumerate(self._parameters)}
        wanted = self._parameters if parameters is None else list(parameters)
        if not wanted or any(id(parameter) not in position for parameter in wanted):
            raise ValueError("last_shared must be among the parameters, not frozen, and not heads")
        return [position[id(parameter)] for parameter in wanted]

    def _count(self, losses: Iterable[Any], tasks: Sequence[int] | None) -> int:
        if tasks is not None:
            return len(tasks)
        if isinstance(losses, Sequence):
            return len(losses)
        if self.method.num_tasks is None:
            raise ValueError("losses has no length: say which tasks they are, as in tasks=range(n)")
        return self.method.num_tasks


def _shared(
    parameters: Iterable[nn.Parameter] | Iterable[tuple[str, nn.Parameter]], heads: list[nn.Parameter], *, named: bool
) -> list[tuple[str, nn.Parameter]]:
    """The parameters with their names (numbers where they have none), without heads and frozen ones."""
    given = list(parameters)
    if named and any(isinstance(item, nn.Parameter) for item in given):
        raise ValueError("groups go by name: give model.named_parameters()")
    pairs = [(str(i), item) if isinstance(item, nn.Parameter) else item for i, item in enumerate(given)]
    if len({id(parameter) for _, parameter in pairs}) != len(pairs):
        raise ValueError("a parameter is given twice")
    head_ids = {id(head) for head in heads}
    shared = [(name, p) for name, p in pairs if p.requires_grad and id(p) not in head_ids]
    if not shared:
        raise ValueError("no parameter to train: all are frozen or heads")
    if len({(parameter.dtype, parameter.device) for _, parameter in shared}) != 1:
        raise ValueError("all parameters must have one dtype and be on one device")
    return shared


def _group_name(groups: str | GroupName) -> GroupName:
    if not isinstance(groups, str):
        return groups
    if groups not in GROUPS:
        raise ValueError(f"no groups {groups!r}; there are {', '.join(GROUPS)}, or a function of the parameter's name")
    return GROUPS[groups]


def _numbered(losses: Iterable[Loss], tasks: list[int]) -> Iterator[tuple[int, Loss]]:
    """Each loss with its task, one at a time."""
    remaining = iter(losses)
    for task in tasks:
        try:
            loss = next(remaining)
        except StopIteration:
            raise ValueError(f"fewer losses than the {len(tasks)} tasks") from None
        yield task, loss
    if next(remaining, None) is not None:
        raise ValueError(f"more losses than the {len(tasks)} tasks")


def _parts(loss: Loss) -> Iterator[Tensor]:
    """The scalars whose sum is the loss, one at a time."""
    if isinstance(loss, Tensor):
        yield loss
    elif callable(loss):
        yield from _parts(loss())
    else:
        for part in loss:
            yield from _parts(part)


def _first_bad(sums: list[Tensor]) -> int | None:
    bad = (~torch.stack(sums).isfinite()).nonzero()
    return int(bad[0]) + 1 if len(bad) else None
