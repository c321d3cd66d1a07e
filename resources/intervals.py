"""95 % intervals: Wilson's of a share, also of a fractional count, which scipy's does not take, and Student's."""

from math import sqrt

Z95 = 1.959963984540054
"""Normal quantile of a two-sided 95 % interval."""


def t95(clusters: int) -> float:
    """Standard errors from a mean over so many clusters (2 or more) to either end of its 95 % interval."""
    from scipy.stats import t

    return float(t.ppf(0.975, clusters - 1))


def wilson(successes: float, total: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; (0, 1) when nothing was counted."""
    if total <= 0:
        return 0.0, 1.0
    share, spread = successes / total, Z95**2 / total
    middle = (share + spread / 2) / (1 + spread)
    half = sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)
