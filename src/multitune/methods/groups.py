"""Which columns of a gradient row belong to which parameter and to which group of parameters."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from torch import nn

from multitune.methods.sharded import shards

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
class Layout:
    """The columns of a row: each group is a run of whole blocks, its parameters one after the other.

    Attributes:
        groups: their names.
        sizes: parameters (scalars) in each group.
        starts: first column of each parameter tensor, in the order in which they were given.
        ranks: how many processes share the columns, each as many whole blocks; padding at the end makes them even.
    """

    groups: tuple[str, ...]
    sizes: tuple[int, ...]
    starts: tuple[int, ...]
    ranks: int = 1

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

    @property
    def columns(self) -> list[slice]:
        """Each group's columns, without the padding."""
        ends = accumulate(self.blocks, initial=0)
        return [slice(BLOCK * first, BLOCK * first + size) for first, size in zip(ends, self.sizes, strict=False)]


def lay_out(parameters: Sequence[tuple[str, nn.Parameter]], name_of_group: GroupName, ranks: int = 1) -> Layout:
    """Columns for named parameters (for this process's shards of them), grouped in the order of their groups."""
    names = [name_of_group(name) for name, _ in parameters]
    groups = tuple(dict.fromkeys(names))
    sizes = dict.fromkeys(groups, 0)
    within = []
    for name, own in zip(names, shards(parameter for _, parameter in parameters), strict=True):
        within.append(sizes[name])
        sizes[name] += own.numel()
    layout = Layout(groups, tuple(sizes.values()), ())
    first = {group: columns.start for group, columns in zip(groups, layout.columns, strict=True)}
    starts = tuple(first[name] + offset for name, offset in zip(names, within, strict=True))
    return Layout(groups, layout.sizes, starts, ranks)
