"""Which columns of a gradient row belong to which parameter and to which group of parameters."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from torch import nn

from multitune.methods.ranks import Ranks
from multitune.methods.sharded import shards as this_shard

BLOCK = 2048
"""Columns of a block. A product of two [tasks, params] matrices is several times slower than many small ones over
column blocks of the same storage; a group's columns are padded with zeros to whole blocks."""

GroupName = Callable[[str], str]
"""From a parameter's name to the name of its group."""


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
"""Gradient Vaccine's parameter groups."""


class BucketsError(ValueError):
    """A number of buckets that does not go with the parameters or the method."""


def group_name(groups: str | GroupName) -> GroupName:
    """The function that ``groups`` names, or ``groups`` itself.

    Raises:
        ValueError: a name that is not in ``GROUPS``.
    """
    if not isinstance(groups, str):
        return groups
    if groups not in GROUPS:
        raise ValueError(f"no groups {groups!r}; there are {', '.join(GROUPS)}, or a function of the parameter's name")
    return GROUPS[groups]


@dataclass(frozen=True)
class Slice:
    """Some columns that lie side by side.

    Attributes:
        first: the first one.
        end: the one after the last.
        number: of the part that they belong to.
    """

    first: int
    end: int
    number: int


@dataclass(frozen=True)
class Layout:
    """The columns of a row: each group is a run of whole blocks, its parameters one after the other.

    Attributes:
        groups: their names.
        sizes: parameters (scalars) in each group.
        starts: first column of each parameter tensor, in the order in which they were given.
        ranks: how many processes share the columns, each as many whole blocks; padding at the end makes them even.
        buckets: N, parts of each group.
        slices: with several buckets, what each of them has of each parameter: part g N + b is bucket b of group g.
    """

    groups: tuple[str, ...]
    sizes: tuple[int, ...]
    starts: tuple[int, ...]
    ranks: int = 1
    buckets: int = 1
    slices: tuple[Slice, ...] = ()

    @property
    def parts(self) -> int:
        """How many Gram matrices there are."""
        return len(self.groups) * self.buckets

    @property
    def blocks(self) -> list[int]:
        """Blocks in each group."""
        return [-(-size // BLOCK) for size in self.sizes]

    @property
    def width(self) -> int:
        """Columns of a row, padding included."""
        return BLOCK * self.ranks * self._blocks_each

    @property
    def _blocks_each(self) -> int:
        """Blocks of a rank."""
        return -(-sum(self.blocks) // self.ranks)

    def blocks_of(self, rank: int) -> list[int]:
        """Blocks in each group that are among a rank's columns; the padding at the end counts for the last group."""
        ends = [*accumulate(self.blocks)]
        ends[-1] = self.ranks * self._blocks_each
        first, last = rank * self._blocks_each, (rank + 1) * self._blocks_each
        within = [min(max(end, first), last) for end in [0, *ends]]
        return [end - begin for begin, end in pairwise(within)]

    def slices_of(self, rank: int) -> list[Slice]:
        """The slices, or what there is of them among a rank's columns, counted from its first one."""
        first, last = (BLOCK * self._blocks_each * number for number in (rank, rank + 1))
        within = [(max(own.first, first), min(own.end, last), own.number) for own in self.slices]
        return [Slice(start - first, end - first, number) for start, end, number in within if start < end]

    @property
    def columns(self) -> list[slice]:
        """Each group's columns, without the padding."""
        ends = accumulate(self.blocks, initial=0)
        return [slice(BLOCK * first, BLOCK * first + size) for first, size in zip(ends, self.sizes, strict=False)]


def lay_out(
    parameters: Sequence[tuple[str, nn.Parameter]],
    name_of_group: GroupName,
    ranks: int = 1,
    buckets: int = 1,
    shards: Ranks | None = None,
) -> Layout:
    """Columns for named parameters, grouped in the order of their groups.

    Args:
        parameters: with their names; of sharded ones this process's shards have the columns.
        name_of_group: their groups.
        ranks: how many processes share the columns.
        buckets: parts of each group.
        shards: the ranks that the parameters are sharded over.

    Raises:
        BucketsError: more of them than any parameter has rows, or none.
    """
    most = max(_rows(parameter) for _, parameter in parameters)
    if not 1 <= buckets <= most:
        raise BucketsError(f"buckets: {buckets} must be from 1 to {most}, the rows of the largest parameter")
    names = [name_of_group(name) for name, _ in parameters]
    groups = tuple(dict.fromkeys(names))
    sizes = dict.fromkeys(groups, 0)
    within = []
    own = [shard.numel() for shard in this_shard([parameter for _, parameter in parameters])]
    for name, size in zip(names, own, strict=True):
        within.append(sizes[name])
        sizes[name] += size
    layout = Layout(groups, tuple(sizes.values()), ())
    first = {group: columns.start for group, columns in zip(groups, layout.columns, strict=True)}
    starts = tuple(first[name] + offset for name, offset in zip(names, within, strict=True))
    slices = []
    if buckets > 1:
        for (_, parameter), name, start, size in zip(parameters, names, starts, own, strict=True):
            slices += _slices(parameter, start, size, buckets, buckets * groups.index(name), shards)
    return Layout(groups, layout.sizes, starts, ranks, buckets, tuple(slices))


def _rows(parameter: nn.Parameter) -> int:
    return parameter.shape[0] if parameter.dim() else 1


def _slices(
    parameter: nn.Parameter, start: int, size: int, buckets: int, number: int, shards: Ranks | None
) -> list[Slice]:
    """What each bucket has of a parameter's columns: bucket b has the rows that rank b of N would have as its shard.

    Args:
        parameter: whole or sharded by its rows.
        start: the first of its columns here.
        size: how many columns it has here.
        buckets: N.
        number: of the part that is its group's first bucket.
        shards: the ranks that have its shards.
    """
    rows = _rows(parameter)
    row = parameter.numel() // max(1, rows)
    before = 0 if shards is None else min(shards.rank * -(-rows // shards.size), rows)
    height = -(-rows // buckets)
    found = []
    for bucket in range(buckets):
        first, end = (max(0, min(row * (edge * height - before), size)) for edge in (bucket, bucket + 1))
        if first < end:
            found.append(Slice(start + first, start + end, number + bucket))
    return found
