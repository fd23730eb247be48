"""Numbers of one column, or of one axis, with the same decimals and the typographer's minus."""

import math
from collections.abc import Sequence


def alike(values: Sequence[float]) -> list[str]:
    """All with as many decimals as show three digits of the largest; whole numbers as they are."""
    if all(float(value).is_integer() for value in values):
        return [fixed(value, 0) for value in values]
    largest = max(abs(value) for value in values if math.isfinite(value))
    digits = max(0, 2 - math.floor(math.log10(largest))) if largest else 0
    return [fixed(value, digits) for value in values]


def stepped(values: Sequence[float]) -> list[str]:
    """Round numbers with as many decimals as the finest of them needs."""
    digits = max((len(f"{value:.6f}".rstrip("0").partition(".")[2]) for value in values), default=0)
    return [fixed(value, digits) for value in values]


def fixed(value: float, digits: int) -> str:
    """So many decimals; no minus before zero."""
    return f"{value:z.{digits}f}".replace("-", "−")
