"""The ranks that share a step's tasks: which computes what, and what they tell each other."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed

from multitune.errors import RunError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup, Work


class LostRankError(RunError):
    """Another rank has ended, or cannot be reached."""


class Ranks:
    """A group of processes that train one model in step, or one process that trains it alone.

    Args:
        group: of torch.distributed; None: this process is alone, and what it tells it hears.

    Attributes:
        rank: this one, from 0.
        size: R.
        wanted: a number that this rank wants the others to know, such as that of a signal; 0 is nothing.
    """

    def __init__(self, group: "ProcessGroup | None" = None) -> None:
        self._group = group
        self.rank, self.size = (
            (0, 1) if group is None else (distributed.get_rank(group), distributed.get_world_size(group))
        )
        self.wanted = self._agreed = 0

    @property
    def agreed(self) -> int:
        """The largest that any rank wanted at the newest sum, on all ranks the same; of one process, what it wants."""
        return self.wanted if self.size == 1 else self._agreed

    def computes(self, place: int) -> bool:
        """Whether the task at this place of a step is this rank's: they are dealt out one after the other."""
        return place % self.size == self.rank

    def sum(self, tensor: Tensor) -> None:
        """Put the sum over the ranks in a tensor's place."""
        if self.size == 1:
            return
        with _reached(self.rank):
            distributed.all_reduce(tensor, group=self._group)

    def sum_together(self, tensors: Sequence[Tensor]) -> None:
        """Put the sums over the ranks in the places of tensors of one type, by one all-reduce."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
        self.sum(flat)
        sums = flat.split([tensor.numel() for tensor in tensors])
        torch._foreach_copy_(list(tensors), [own.view_as(t) for own, t in zip(sums, tensors, strict=True)])

    def send(self, tensor: Tensor, to: int) -> None:
        """Send a tensor to another rank, which calls ``received``."""
        with _reached(self.rank):
            distributed.send(tensor, group=self._group, group_dst=to)

    def received(self, out: Tensor, origin: int) -> Tensor:
        """Put what another rank sends in ``out``, and return that."""
        with _reached(self.rank):
            distributed.recv(out, group=self._group, group_src=origin)
        return out

    def sums_on_host(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sums over the ranks, on the CPU, in float64: one all-reduce, on which ``wanted`` rides."""
        if self.size == 1:
            return on_host(*tensors)
        wanted = torch.zeros(self.size, dtype=torch.float64)
        wanted[self.rank] = self.wanted
        device = tensors[0].device
        parts = [wanted.to(device, non_blocking=True), *tensors]
        flat = torch.cat([part.detach().to(torch.float64).flatten() for part in parts])
        self.sum(flat)
        asked, *sums = flat.cpu().split([part.numel() for part in parts])
        self._agreed = int(asked.max())
        return [own.view(tensor.shape) for own, tensor in zip(sums, tensors, strict=True)]

    def meet(self, device: torch.device | str = "cpu") -> None:
        """Wait for all ranks; what any of them ``wanted`` is ``agreed``."""
        self.sums_on_host([torch.zeros(1, device=device)])

    def tell(self, text: str) -> str:
        """The text of rank 0, on all ranks."""
        if self.size == 1:
            return text
        said = bytearray(text.encode()) if self.rank == 0 else bytearray()
        (length,) = self.sums_on_host([torch.tensor([float(len(said))])])
        heard = torch.frombuffer(said or bytearray(int(length)), dtype=torch.uint8)
        with _reached(self.rank):
            distributed.broadcast(heard, group=self._group, group_src=0)
        return heard.numpy().tobytes().decode()

    def pooled(self, own: Mapping[int, Any]) -> dict[int, Any]:
        """What all ranks have under numbers that are theirs alone, on all ranks; any Python values."""
        if self.size == 1:
            return dict(own)
        every: list[dict[int, Any]] = [{} for _ in range(self.size)]
        with _reached(self.rank):
            distributed.all_gather_object(every, dict(own), group=self._group)
        return {number: value for part in every for number, value in part.items()}

    def gather(self, own: Tensor) -> Tensor:
        """The ranks' tensors of one shape, [R, ...]."""
        every = own.new_empty(self.size, *own.shape)
        self.gather_into(every, own)
        return every

    def gather_into(self, out: Tensor, own: Tensor) -> None:
        """Put the ranks' tensors one after the other in ``out``; ``own`` may be its own part of it."""
        with _reached(self.rank):
            # torch's newer name for it; the older one warns where there is the newer
            call = getattr(distributed, "all_gather_single", None) or distributed.all_gather_into_tensor
            call(out.flatten(), own.flatten(), group=self._group)

    def send_columns(self, row: Tensor | None, out: Tensor, origins: Sequence[int]) -> "Journey":
        """Begin to send each rank its columns of this rank's row, and to receive this rank's of theirs.

        Args:
            row: [width]; None where this rank has no row.
            out: [rows, width / R], where the rows go.
            origins: the ranks that have a row in this round, in ascending order.
        """
        size = out.shape[1]
        sent = out.new_empty(0) if row is None else row
        sizes_in = [0 if row is None else size] * self.size
        sizes_out = [size if rank in origins else 0 for rank in range(self.size)]
        with _reached(self.rank):
            work = distributed.all_to_all_single(
                out.view(-1), sent, sizes_out, sizes_in, group=self._group, async_op=True
            )
        return Journey(work, self.rank)


class Journey:
    """Something on its way between ranks."""

    def __init__(self, work: "Work", rank: int) -> None:
        self._work, self._rank = work, rank

    def wait(self) -> None:
        """Wait until it has arrived."""
        with _reached(self._rank):
            self._work.wait()


def on_host(*tensors: Tensor) -> list[Tensor]:
    """Copy tensors to the CPU, in float64, by one transfer: the host waits for the device once."""
    flat = torch.cat([tensor.detach().double().flatten() for tensor in tensors]).cpu()
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


@contextmanager
def _reached(rank: int) -> Iterator[None]:
    """Turn what torch.distributed raises inside, where a rank is gone, into ``LostRankError``."""
    try:
        yield
    except RuntimeError as error:
        reason = (
            str(error).splitlines()[0].rpartition("] ")[2].partition(". ")[0] if str(error) else type(error).__name__
        )
        raise LostRankError(f"another rank has ended or cannot be reached (on rank {rank}: {reason})") from error
