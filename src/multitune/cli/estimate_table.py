"""What runs would take, as a table."""

from collections.abc import Sequence

from multitune.cli.sheet import Column, Number, Sheet
from multitune.commands.estimate import EstimatedRuns
from multitune.screen.words import duration, size


def estimates(runs: Sequence[EstimatedRuns]) -> Sheet:
    """One line a method, and below what all of it takes, one run after the other."""
    columns = [Column("method", text=True), Column("runs"), Column("gradients", "gradients each")]
    columns += [Column("minutes", "minutes each"), Column("peak_gib", "peak GiB")]
    columns += [Column("checkpoints", "checkpoints on disk"), Column("checkpoint_mib", "MiB each")]
    sheet = Sheet("estimate", columns)
    for own in runs:
        each = own.each
        minutes, peak = Number(each.seconds / 60, 1), Number(each.memory_bytes / 2**30)
        disk = Number(each.checkpoint_bytes / 2**20, 1)
        sheet.add(own.method, own.count, each.gradients, minutes, peak, each.checkpoints, disk)
    seconds = sum(own.count * own.each.seconds for own in runs)
    memory = max(own.each.memory_bytes for own in runs)
    sheet.notes.append(
        f"about {duration(seconds)}, {size(memory)}; estimated from a few gradients each, without loading"
    )
    return sheet
