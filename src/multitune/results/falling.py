"""Metrics of which a lower score is the better one: their names say it."""

FALLING = ("loss", "error")
"""How the names of such metrics begin."""


def is_falling(metric: str) -> bool:
    """Whether a lower score is better: ``loss``, ``loss_per_byte``, ``error_rate``."""
    return metric.startswith(FALLING)


def rising(metric: str, score: float) -> float:
    """The score, or its negative where a lower one is better: what is higher is better."""
    return -score if is_falling(metric) else score


def rank(metric: str, score: float | None) -> float:
    """What scores are sorted by, the worst first; below every other where there is none."""
    return float("-inf") if score is None else rising(metric, score)


def gain(metric: str, score: float | None, other: float | None) -> float | None:
    """By how much a score is better than another."""
    return None if score is None or other is None else rising(metric, score) - rising(metric, other)


def unit(metric: str) -> str:
    """What follows a metric's name on axes and in heads of tables: all are in percent but losses."""
    return "" if metric.startswith("loss") else ", %"
