"""A run that torchrun or ``accelerate launch`` has started on several ranks: their group, and who speaks for it."""

import hashlib
import itertools
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from pathlib import Path
from signal import Signals
from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed

from multitune.errors import AlreadySaid, Interrupted, RunError, UserError
from multitune.methods.ranks import LostRankError, Ranks
from multitune.plans import METHODS, Plan
from multitune.plans.combined import SeveralTasks
from multitune.plans.two_loop import ManyWalks
from multitune.recipe import Recipe
from multitune.screen.places import is_one_of_several
from multitune.storage.interrupt import Leave, StopRequested, StopSignal

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

MEETING = ("MASTER_ADDR", "MASTER_PORT")
"""Where launchers let the ranks meet, beside RANK and WORLD_SIZE."""
VISIBLE = 60.0
"""Seconds after which a network's file system shows what another machine has written."""
LINGERING = 3.0
"""Seconds that rank 0, whose store all ask, stays at most for the others at its end."""
TICK = 0.2
"""Seconds after which a rank listens whether another one has an error."""
JOINING = timedelta(minutes=30)
"""Ranks wait so long for all to have begun."""
PATIENCE = timedelta(days=1)
"""Ranks wait for one that is slow, or scores alone; one that has ended is known at once."""
_numbers = itertools.count()
"""Of the groups that this process has joined, one after the other."""


def launched() -> bool:
    """Whether this process is one of several that a launcher has started as one run.

    Raises:
        UserError: it is, but does not know where to meet the others: each would make the whole run.
    """
    if not is_one_of_several():
        return False
    for name in MEETING:
        if name not in os.environ:
            raise UserError(
                f"torchrun: WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {name} is not set; start the "
                f"ranks with torchrun"
            )
    return True


@contextmanager
def joined() -> Iterator[Ranks]:
    """Inside, the processes of a launched run are a group; one process that nobody has launched is alone.

    Of several ranks with an error, the first one alone lets it out; the others raise ``AlreadySaid``.

    Raises:
        UserError: the ranks cannot meet where the launcher says.
    """
    if distributed.is_available() and distributed.is_initialized():
        group = distributed.group.WORLD
        assert group is not None
        yield Ranks(group)
    elif not launched():
        yield Ranks()
    else:
        store, rank, size = _joined()
        group = distributed.group.WORLD
        assert group is not None
        with _said_once(store, rank, size):
            yield Ranks(group)
        distributed.destroy_process_group()


def _joined() -> tuple["Store", int, int]:
    """Make the group of all ranks; its store, this rank and their number.

    Raises:
        UserError: the ranks cannot meet where the launcher says.
    """
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        store, rank, size = _meeting()
        # an earlier group's entries are no longer true
        own = distributed.PrefixStore(f"multitune/{next(_numbers)}", store)  # type: ignore[attr-defined]
        distributed.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise UserError(f"torchrun: the ranks cannot meet at MASTER_ADDR:MASTER_PORT, {where}: {error}") from error
    return own, rank, size


@cache
def _meeting() -> tuple["Store", int, int]:
    """The store that all ranks ask, which lives as long as the process; this rank and their number."""
    from torch.distributed.rendezvous import rendezvous

    store, rank, size = next(rendezvous("env://", timeout=JOINING))
    store.set_timeout(PATIENCE)
    return store, rank, size


@contextmanager
def _said_once(store: "Store", rank: int, size: int) -> Iterator[None]:
    with _Listener(store) as listener:
        try:
            yield
        except Interrupted as error:  # rank 0 has the folder that it speaks of
            listener.leave_together(rank, size)
            if rank != 0:
                raise AlreadySaid from error
            raise
        except (UserError, RunError, Leave) as error:
            first = listener.is_first()
            if rank == 0 and not isinstance(error, Leave):
                # The store ends with it, and then nobody can ask; what the others wait for ends with its process.
                listener.wait_for(size - isinstance(error, LostRankError))
            if not first:
                raise AlreadySaid from error
            if isinstance(error, LostRankError):
                raise RunError(f"{error}; go on from the newest checkpoint with --resume") from error
            raise


class _Listener:
    """Hears in a thread of its own that another rank has an error: rank 0's store may be gone when this one asks."""

    def __init__(self, store: "Store") -> None:
        self._store, self._heard, self._ended = store, False, threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> "_Listener":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def is_first(self) -> bool:
        """Whether no other rank has had an error before; of a store that is gone, what was heard of it decides.

        This rank hears no more then: it ends.
        """
        self._stop()
        try:
            first = bool(self._store.add("multitune/said", 1) == 1)
            if not self._heard:
                self._store.add("multitune/heard", 1)
        except RuntimeError:
            return not self._heard
        return first

    def wait_for(self, count: int) -> None:
        """Wait until so many ranks, this one among them, have heard of an error, but not long."""
        self._wait("multitune/heard", count)

    def leave_together(self, rank: int, size: int) -> None:
        """Let rank 0 stay until all have come as far as this, but not long: what it sent last may be on its way."""
        with suppress(RuntimeError):
            self._store.add("multitune/left", 1)
        if rank == 0:
            self._wait("multitune/left", size)

    def _wait(self, name: str, count: int) -> None:
        last = time.monotonic() + LINGERING
        # A launcher that sees another rank end signals this one, which has something to say yet. The store may be the
        # launcher's, which is gone.
        with StopSignal(), suppress(RuntimeError):
            while self._store.add(name, 0) < count and time.monotonic() < last:
                time.sleep(0.01)

    def _listen(self) -> None:
        with suppress(RuntimeError):  # the store is gone with rank 0
            while not self._ended.wait(TICK) and not self._heard:
                if self._store.add("multitune/said", 0):
                    self._heard = True
                    self._store.add("multitune/heard", 1)


@contextmanager
def first_alone(ranks: Ranks) -> Iterator[None]:
    """Rank 0 is inside first: what it leaves in the cache, the others find."""
    if ranks.rank != 0:
        ranks.meet()
    yield
    if ranks.rank == 0:
        ranks.meet()


def check_shared(ranks: Ranks, out: Path) -> None:
    """Make sure that this rank sees the run folder that rank 0 has begun; else it would fail when the budget is spent.

    Raises:
        UserError: it does not.
    """
    last = time.monotonic() + VISIBLE
    while ranks.rank != 0 and not (out / "recipe.yaml").exists():
        if time.monotonic() >= last:
            raise UserError(
                f"select: best: rank {ranks.rank} does not see the folder of rank 0, {out}, where the best weights "
                f"are; name one that all machines share, or set select to last"
            )
        time.sleep(TICK)


def stop_together(ranks: Ranks, stop: StopSignal) -> None:
    """Raise StopRequested on all ranks where a signal has come to any of them; all call together."""
    ranks.wanted = stop.requested or 0
    ranks.meet()
    if ranks.agreed:
        raise StopRequested(Signals(ranks.agreed))


def check_method(name: str, plan: Plan, size: int, *, split_batch: bool = False, key: str = "split_batch") -> None:
    """Make sure that a method works on so many ranks, which share its tasks or trajectories, or each batch.

    Args:
        key: of the recipe, which asks for ``split_batch``.

    Raises:
        UserError: it does not.
    """
    if split_batch:
        if plan.one_model_per_task or not plan.splits_batches:
            why = (
                "trains one model per language" if plan.one_model_per_task else "has a loss that is no mean over labels"
            )
            raise UserError(f"{key}: cannot stand beside {name}, which {why}")
        return
    if isinstance(plan, ManyWalks) and plan.trajectories % size:
        raise UserError(
            f"options.trajectories: {plan.trajectories} of {name} cannot be dealt evenly over {size} ranks; choose a "
            f"multiple of {size}"
        )
    if not (plan.shares_tasks or isinstance(plan, ManyWalks)):
        able = [each for each, kind in METHODS.items() if kind.shares_tasks]
        walking = [each for each, kind in METHODS.items() if issubclass(kind, ManyWalks)]
        raise UserError(
            f"method: {name} runs in one process, without torchrun; on several ranks run {', '.join(able)}, "
            f"torchjd:NAME (its methods of the Gram matrix), with options.trajectories {', '.join(walking)}; or set "
            f"split_batch: true"
        )


def check_alike(ranks: Ranks, parts: Mapping[str, object]) -> None:
    """Make sure that all ranks have the same version, data, weights and the like.

    Args:
        ranks: all of them.
        parts: what is compared, by its name in the plural; lists of tensors by their bytes, all else by its text.

    Raises:
        UserError: a rank has something else than rank 0; all ranks raise it.
    """
    if ranks.size == 1:
        return
    own = torch.tensor([_fingerprint(part) for part in parts.values()])
    every = ranks.gather(own)
    for rank, differs in enumerate(every.ne(every[0]).tolist()):
        for name, other in zip(parts, differs, strict=True):
            if other:
                raise UserError(f"torchrun: the {name} of rank {rank} differ from those of rank 0; all need the same")


def check_shard(recipe: Recipe, plan: Plan) -> None:
    """Make sure that a recipe's model can be sharded.

    Raises:
        UserError: it cannot.
    """
    if isinstance(plan, SeveralTasks) and not plan.shares_tasks:
        raise UserError(f"shard: cannot stand beside {recipe.method}, which reads whole gradients")
    if recipe.micro_batch_size is not None:
        raise UserError("shard: cannot stand beside micro_batch_size; gradient_checkpointing saves memory, too")
    if recipe.precision == "fp16":
        raise UserError("shard: cannot stand beside precision: fp16; set that to bf16 or fp32")
    if recipe.probe_every is not None:
        raise UserError("shard: cannot stand beside probe_every, which needs the model whole; set that to null")


def _fingerprint(part: object) -> int:
    found = hashlib.blake2b(digest_size=8)
    if isinstance(part, list):
        for tensor in part:
            assert isinstance(tensor, Tensor)
            found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    else:
        found.update(repr(part).encode())
    return int.from_bytes(found.digest()) >> 1
