"""The combine engine: task losses -> rows of one buffer -> Gram matrix -> weights -> one gradient for any optimizer."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from multitune.methods.base import CombiningMethod, GramMethod, NonFiniteError, StreamingMethod
from multitune.methods.collected import NOTHING, rounds
from multitune.methods.given_parameters import check_shards, positions, shared_ones
from multitune.methods.gram import full_precision
from multitune.methods.groups import BucketsError, GroupName, group_name, lay_out
from multitune.methods.heads import Heads
from multitune.methods.losses import Loss, graphs_needed_again, numbered, scalars
from multitune.methods.parts import Parts
from multitune.methods.ranks import Ranks
from multitune.methods.replicas import Replicas, find_replicas
from multitune.methods.rows import Rows
from multitune.methods.sharded import ranks_of
from multitune.methods.shards import Shard
from multitune.methods.step_kinds import new_step
from multitune.methods.steps import Setting, Step

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class Combiner:
    """Combines several tasks' gradients into the one that is left in `.grad`, for any torch optimizer.

        combiner = Combiner(model.named_parameters(), PCGrad(seed=0))
        for batches in loader:                                  # one batch a task
            optimizer.zero_grad()
            combiner.backward((loss(model, batch) for batch in batches), tasks=range(len(batches)))
            optimizer.step()

    In a loop that calls `loss.backward()` itself (with a GradScaler, DistributedDataParallel, accumulation, ...):

            for task, batch in enumerate(batches):
                value = loss(model, batch)
                value.backward()
                combiner.collect(task, value)                   # .grad goes to the task's row
            combiner.apply()                                    # .grad is the combined gradient

    The combined gradient is added to what is in `.grad`, as torch does: `zero_grad` belongs into the loop. (A new
    Combiner drops what an earlier one has left there.) A parameter that no task has ever reached gets none, as in plain
    training; one that this step's tasks do not reach, but others did, gets zeros.

    Args:
        parameters: with their names (`model.named_parameters()`) where `groups` goes by name. Those that are frozen now
            are left out for good: make another Combiner after thawing any. One dtype and device.
        method: a combining method. With `backward`, Joint needs one gradient vector, FAMO and GradNorm two, those that
            read the Gram matrix one a task and one more; with `collect`, all but Joint need one a task and one more.
            Methods that read the gradients themselves add what their library allocates.
        groups: where the method has a Gram matrix, state and weights of its own: whole_model, enc_dec, all_layer,
            all_matrix, or a function from a parameter's name to its group's. Methods with one weight a task take no
            notice.
        buckets: N, parts of each group with Gram matrices, states and weights of their own: bucket b has the b-th slice
            of each parameter's rows, ceil(rows / N) of them (arXiv 2606.05613). The outcome does not depend on ranks.
        heads: parameters that get gradient from one task only. They are left out of the Gram matrix; GradNorm and FAMO,
            which minimise a weighted sum of the losses, leave w_i g_i there, all others g_i.
        last_shared: the parameters whose gradient norms GradNorm compares, the paper's W (default: all but the heads).
        reduction: "sum" of the corrected gradients, as in the papers, or that divided by the number of tasks, "mean".
        split_batch: the ranks of `process_group` share each batch in the place of the tasks: every rank gives, for each
            task, its part of the loss (its own mean times its share of the batch's labels, say), and the parts add up.
        process_group: of torch.distributed (or `Ranks` of one), whose ranks share each step's tasks: rank r of R
            computes the r-th, the (R + r)-th, ... of them in `backward`, and collects those that it likes with
            `collect`. All ranks begin with the same weights and a method of the same state, call `backward` with the
            same tasks and scales, and are left with the same `.grad`, which is one process's but for rounding. No
            DistributedDataParallel is around the model.

    Parameters that `fully_shard` has divided (DTensor) need no `process_group`. All ranks back-propagate each task's
    loss, on a part of its batch each, and `fully_shard` leaves each rank its shard of the gradient: rows are 1/R as
    long, and ranks tell each other a [tasks, tasks] matrix and the losses. Of these the mean over the ranks counts, as
    of the gradients; with `split_batch=True` the sum, as where `set_gradient_divide_factor(1.0)` was called.

    Raises:
        ValueError: parameters that are given twice, mixed, unnamed where names are needed, or all frozen; a method
            that reads the gradients themselves, over ranks.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter] | Iterable[tuple[str, nn.Parameter]],
        method: CombiningMethod,
        *,
        groups: str | GroupName = "whole_model",
        buckets: int = 1,
        heads: Iterable[nn.Parameter] = (),
        last_shared: Iterable[nn.Parameter] | None = None,
        reduction: Literal["sum", "mean"] = "sum",
        process_group: "ProcessGroup | Ranks | None" = None,
        split_batch: bool = False,
    ) -> None:
        if reduction not in ("sum", "mean"):
            raise ValueError(f'reduction must be "sum" or "mean"; got {reduction!r}')
        name_of_group = group_name(groups)
        every = process_group if isinstance(process_group, Ranks) else Ranks(process_group)
        head_parameters = list(heads)
        shared = shared_ones(parameters, head_parameters, named=groups not in ("whole_model", "all_matrix"))
        shards = ranks_of([*(parameter for _, parameter in shared), *head_parameters])
        if shards is not None and process_group is not None:
            check_shards(shards, every, split_batch=split_batch)
            shards = every
        ranks = every if every.size > 1 and not split_batch else None
        if (ranks or shards) is not None and not isinstance(method, GramMethod):
            raise ValueError(
                f"{type(method).__name__} reads the gradients themselves and works in one process; over ranks work "
                "methods that need their losses or the Gram matrix"
            )
        self.method, self._heads, self._ranks = method, Heads(head_parameters, ranks), ranks
        self._losses_averaged = not split_batch
        if isinstance(method, StreamingMethod):  # one weight a task
            buckets = 1
        elif buckets != 1 and not isinstance(method, GramMethod):
            raise BucketsError(f"buckets: {type(method).__name__} reads the gradients themselves; leave it 1")
        self.layout = lay_out(shared, name_of_group, 1 if ranks is None else ranks.size, buckets, shards)
        self._rows = Rows([parameter for _, parameter in shared], self.layout)
        measured = positions(self._rows.parameters, last_shared)
        self._setting = Setting(self._rows, measured, reduction == "mean", self._heads, ranks, shards)
        self._shard = None if ranks is None else Shard(self._rows, ranks)
        splits = every.size > 1 and split_batch and shards is None
        self._parts = Parts(every, self._rows, self._heads) if splits else None
        self._collected: Step | None = None
        self._replicas: Replicas | None = find_replicas(self._rows.parameters)
        self._is_new = True
        method.for_groups(self.layout.parts)

    def backward(
        self,
        losses: Iterable[Loss],
        tasks: Sequence[int] | None = None,
        scales: Sequence[float] | None = None,
    ) -> Tensor:
        """Backpropagate each task's loss, combine, and add the combined gradient to `.grad`.

        Args:
            losses: one a task, taken one at a time, so that with a generator (or functions) one graph lives at a time.
                Losses that share a forward pass must be a list or a tensor, [n]. A task's loss may be several (an
                iterable): gradient accumulation, their sum. Over ranks give functions: only those of this rank's tasks
                are called.
            tasks: which of the method's tasks they are (default: all, in order); needed where `losses` has no length.
            scales: [n], factors of the losses, such as what makes up for how often a task is drawn. PCGrad, GradVac and
                all others that read the Gram matrix or the gradients get s_i g_i for g_i; Joint, GradNorm and FAMO
                leave sum_i s_i w_i g_i, where w comes from the g_i and losses as they are.

        Returns:
            The losses' values without their scales, [n], on the CPU; their means over the ranks where
            DistributedDataParallel trains the parameters; those of all ranks where these share the tasks.

        Raises:
            NonFiniteError: (a ValueError) names the tasks whose loss or gradient is NaN or infinite; the method's
                state and `.grad` are as before. For a GradScaler, which finds such steps itself, there is `collect`.
                All ranks of a group raise it together.
            ValueError: losses that are not scalars with a graph, or not n; a forward pass that was used before.
            LostRankError: (a RuntimeError) a rank of the group has ended.
        """
        if self._collected is not None:
            raise ValueError("collect() has taken gradients for apply(), which comes before backward()")
        given = losses.unbind() if isinstance(losses, Tensor) else losses
        indices = self.method.task_indices(tasks, self._count(given, tasks))
        if not indices:
            raise ValueError("no losses to combine")
        factors = _scales(scales, len(indices))
        needed = graphs_needed_again(given)
        step = self._new_step(len(indices))
        with self._adding_to_grad(step) as weights:
            for place, ((task, loss), scale) in enumerate(zip(numbered(given, indices), factors, strict=True)):
                if self._ranks is not None and not self._ranks.computes(place):
                    step.pass_over(task, scale)
                    continue
                row, add = step.place(task)
                self._rows.attach(row, add=add)
                value = self._backpropagate(loss, task, scale, needed)
                self._check_replicas(task)
                self._rows.absorb(row, add=False)
                self._heads.absorb(task, self._rows.row(row))
                if self._parts is not None:
                    value = self._parts.make_whole(task, row, value)
                step.take(task, self._over_replicas(self._over_shards(value)), scale)
            with full_precision(self._rows.device):
                weights.update(step.combine(1.0, self._replicas))
        assert step.losses is not None
        return step.losses

    def collect(self, task: int, loss: Tensor | float | None = None, scale: float = 1.0) -> None:
        """Move `.grad`, which the backward pass of a task's loss has left, to the task's row; `.grad` is None then.

        What is collected of one task in a step adds up, in whatever order the tasks come: gradient accumulation. Over
        ranks each collects tasks that are its alone, or none; with `split_batch` each collects its part of all.

        Args:
            task: which of the method's tasks it is.
            loss: the loss as it is, before a GradScaler or `scale` multiplies it. GradNorm and FAMO need it, the others
                look whether it is finite. The losses of a task add up as its gradients do: give both divided by the
                number of micro-batches, or neither.
            scale: a factor of the gradient, as in `backward`; `.grad` does not have it yet.

        Raises:
            ValueError: no such task; no loss where the method needs it; a scale that is not positive, or another one
                than before in this step; no gradient, or one made under DistributedDataParallel's no_sync().
        """
        (task,) = self.method.task_indices([task], 1)
        (scale,) = _scales([scale], 1)
        if loss is None and self.method.reads_losses:
            raise ValueError(f"{type(self.method).__name__} needs the loss before any scaling: collect(task, loss)")
        value = None if loss is None else self._over_shards(_scalar(loss, task, self._rows.device))
        if all(parameter.grad is None for parameter in [*self._rows.parameters, *self._heads.parameters]):
            raise ValueError(f"no parameter has a gradient: collect({task}) comes after the backward pass of its loss")
        self._check_replicas(task)
        if self._collected is None:
            self._collected = self._new_step(None)
        self._collected.check(task, scale)
        row, add = self._collected.place(task)
        self._rows.absorb(row, add=add, scale=scale)
        self._heads.absorb(task, self._rows.row(row), scale=scale)
        self._collected.take(task, value, scale)

    def apply(self, loss_scale: float = 1.0) -> list[int]:
        """Combine what was collected since the last call, and add it to `.grad` (a regulariser's gradient, say).

        Ranks of a process group call it together, and are left with the same `.grad`: that of one process which has
        collected the first task of each rank, then the second of each, and so on.

        Where a task's loss or gradient is NaN or infinite, `.grad` is so, too, for a GradScaler to find, which then
        leaves out the optimizer's step; the method's state is as before.

        Args:
            loss_scale: what all losses were multiplied by before their backward passes: a GradScaler's `get_scale()`.
                The method sees the gradients without it; the combined one keeps it, for the GradScaler to undo.

        Returns:
            The tasks whose loss or gradient is not finite: none, as a rule.

        Raises:
            ValueError: nothing was collected, or the method has no use for the losses (see there); two ranks have
                collected one task, or, with `split_batch`, not the same. All ranks raise it together.
            LostRankError: (a RuntimeError) a rank of the group has ended.
        """
        (loss_scale,) = _scales([loss_scale], 1)
        step, self._collected = self._collected or self._new_step(None), None
        bad: list[int] = []
        with self._adding_to_grad(step) as weights, full_precision(self._rows.device):
            self._bring_together(step)
            try:
                weights.update(step.combine(loss_scale, self._replicas))
            except NonFiniteError as error:
                step.write_through()
                bad = error.tasks
        return bad

    def state_dict(self) -> dict[str, Tensor]:
        """The method's state, and which parameters have had a gradient (theirs is never None again); tensors only."""
        own = {"reached": torch.tensor(self._rows.reached)}
        return own | {f"method.{name}": tensor for name, tensor in self.method.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue where ``state`` was taken; what was collected of a step that was not applied is dropped.

        Raises:
            ValueError: the state belongs to other parameters.
            RuntimeError: it belongs to another method, or one of other tasks.
        """
        reached: list[bool] = state["reached"].tolist()
        if len(reached) != len(self._rows.reached):
            raise ValueError(
                f"this state is of {len(reached)} parameters, and {len(self._rows.reached)} are combined: freeze what "
                "was frozen when it was saved, or go on with a new Combiner's state"
            )
        prefix = "method."
        own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        self.method.load_state_dict(own)
        self._collected = None
        self._heads.put_back(self._heads.set_aside())
        self._rows.reached = reached

    @contextmanager
    def _adding_to_grad(self, step: Step) -> Iterator[dict[int, float]]:
        """Inside, `.grad` is free for a step; afterwards it has what it had before and what the step has combined.

        The dict is for the weights of the tasks' heads. After an error `.grad` is what it was.
        """
        others, others_of_heads = self._rows.set_aside(), self._heads.set_aside()
        weights: dict[int, float] = {}
        try:
            yield weights
        except BaseException:
            self._rows.put_back(others)
            self._heads.put_back(others_of_heads)
            raise
        self._rows.leave(others)
        self._heads.leave(others_of_heads, weights, step.divisor)

    def _new_step(self, count: int | None) -> Step:
        """A step in which so many tasks come, each once and with its loss; None for those that are collected."""
        return new_step(self._setting, self.method, count, self._shard, in_parts=self._parts is not None)

    def _bring_together(self, step: Step) -> None:
        """Have in a step what all ranks have collected.

        Raises:
            ValueError: nothing was collected, or not as ranks have to share it.
        """
        if self._ranks is not None:
            step.join(rounds(self._ranks, step.shares))
        elif self._parts is not None:
            self._parts.make_step_whole(step)
        elif not step.shares:
            raise ValueError(NOTHING)

    def _over_shards(self, value: Tensor) -> Tensor:
        """The loss whose gradient the ranks have shards of: each has had its part of the batch."""
        ranks = self._setting.shards
        if ranks is None:
            return value
        total = value.double()
        ranks.sum(total)
        return (total / ranks.size if self._losses_averaged else total).to(value.dtype)

    def _over_replicas(self, value: Tensor) -> Tensor:
        """The loss by which a gradient that DistributedDataParallel has averaged is weighted as it comes."""
        if self._replicas is None or not self.method.reads_losses:
            return value
        return self._replicas.mean(value)

    def _check_replicas(self, task: int) -> None:
        if self._is_new and self._replicas is None:  # DistributedDataParallel may have come after the Combiner
            self._replicas = find_replicas(self._rows.parameters)
        self._is_new = False
        if self._replicas is not None:
            if self._ranks is not None or self._parts is not None:
                raise ValueError(
                    "DistributedDataParallel would mix the gradients of the ranks' tasks: give process_group= a model "
                    "that is not wrapped"
                )
            self._replicas.check(task)

    def _backpropagate(self, loss: Loss, task: int, scale: float, needed: set[int]) -> Tensor:
        """Let autograd add the gradient of a task's loss, times ``scale``, to `.grad`.

        Args:
            loss: in any of its forms.
            task: whose it is.
            scale: a factor.
            needed: the ids of losses whose graph a later one needs.

        Returns:
            The loss, not multiplied, a scalar.
        """
        device = self._rows.device
        value = torch.zeros((), device=device)
        for part in scalars(loss):
            if part.dim() != 0 or not part.requires_grad:
                raise ValueError(f"the loss of task {task} must be a scalar with a graph; got {part}")
            with torch.autocast(device.type, enabled=False):
                _backward(part, task, scale, keep=id(part) in needed)
            value = value + part.detach()
        return value

    def _count(self, losses: Iterable[Any], tasks: Sequence[int] | None) -> int:
        if tasks is not None:
            return len(tasks)
        if isinstance(losses, Sequence):
            return len(losses)
        if self.method.num_tasks is None:
            raise ValueError("losses has no length: say which tasks they are, as in tasks=range(n)")
        return self.method.num_tasks


def _backward(loss: Tensor, task: int, scale: float, *, keep: bool) -> None:
    try:
        loss.backward(None if scale == 1 else torch.full_like(loss, scale), retain_graph=keep)
    except RuntimeError as error:
        if "backward through the graph a second time" not in str(error):
            raise
        raise ValueError(
            f"the loss of task {task} needs a forward pass that an earlier loss has used up: give losses that share "
            "one as a list"
        ) from error


def _scalar(loss: Tensor | float, task: int, device: torch.device) -> Tensor:
    if not isinstance(loss, Tensor):
        return torch.full((), loss, dtype=torch.float64, device=device)
    if loss.dim() != 0:
        raise ValueError(f"the loss of task {task} must be a scalar; got {list(loss.shape)}")
    return loss.detach().to(device)


def _scales(scales: Sequence[float] | None, count: int) -> list[float]:
    factors = [1.0] * count if scales is None else [float(scale) for scale in scales]
    if len(factors) != count or not all(0 < factor < math.inf for factor in factors):
        raise ValueError(f"scales must be {count} positive numbers, one a task; got {factors}")
    return factors
