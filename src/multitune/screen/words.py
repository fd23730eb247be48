"""Spans of time and sizes as a person says them."""


def duration(seconds: float) -> str:
    """``40 s``, ``4 min``, ``2.5 h``: to one or two digits."""
    if seconds < 99.5:
        return f"{max(1, round(seconds))} s"
    if seconds < 99.5 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """``2.1 GiB``, ``340 MiB``."""
    return f"{count / 2**30:.1f} GiB" if count >= 1000 * 2**20 else f"{count / 2**20:.0f} MiB"
