"""With how many decimals tables show a score."""


def decimals(metric: str) -> int:
    """Tenths of a percent; thousandths of a nat of a loss, which is seldom above a few."""
    return 3 if metric.startswith("loss") else 1
