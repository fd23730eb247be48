"""Which kind of step a combining method needs."""

from multitune.methods.base import CombiningMethod, GramMethod, RowsMethod, StreamingMethod
from multitune.methods.shards import CollectedForGram, Shard, ShardedForGram
from multitune.methods.steps import Setting, StackedForGram, StackedForRows, Step
from multitune.methods.streamed import StackedForNorms, Streamed, Summed


def new_step(
    setting: Setting, method: CombiningMethod, count: int | None, shard: Shard | None, *, in_parts: bool
) -> Step:
    """A step with rows for all tasks, unless the method can do without.

    Args:
        setting: of the Combiner.
        method: the combining method.
        count: how many tasks will come, each once and with its loss; None for those that are collected.
        shard: this rank's columns, where ranks share the tasks.
        in_parts: ranks share each batch, so that each gradient needs a row of its own until it is whole.
    """
    if isinstance(method, StreamingMethod):
        if method.unweighted and (count is None or not in_parts):
            return Summed(setting)
        return StackedForNorms(setting, method) if count is None else Streamed(setting, method)
    if shard is not None:
        assert isinstance(method, GramMethod)
        if count is not None:
            return ShardedForGram(setting, method, count, shard)
        return CollectedForGram(setting, method, shard)
    setting.rows.reserve(1 + (count or 0))
    if isinstance(method, GramMethod):
        return StackedForGram(setting, method)
    assert isinstance(method, RowsMethod)
    return StackedForRows(setting, method)
