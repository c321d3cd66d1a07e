"""95 % intervals: Wilson's of a share (of fractional counts too, which scipy's is not), Student's and Newcombe's; the
standard error of a pooled ratio."""

from collections.abc import Sequence
from math import fsum, hypot, sqrt
from typing import NamedTuple

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


def difference(first: tuple[float, float, float], second: tuple[float, float, float]) -> tuple[float, float]:
    """Interval of the first minus the second, which are independent, from (value, low, high) of each.

    Newcombe 1998, method 10; for other intervals than Wilson's Zou and Donner 2008.
    """
    value, low, high = first
    other, other_low, other_high = second
    middle = value - other
    return middle - hypot(value - low, other_high - other), middle + hypot(high - value, other - other_low)


class Ratio(NamedTuple):
    """A pooled ratio and its standard error over clusters."""

    value: float
    sem: float | None
    """None for fewer than two clusters."""


def ratio(tops: Sequence[float], bottoms: Sequence[float]) -> Ratio:
    """Sum of tops over sum of bottoms, clusters being the entries.

    The error is the linearised ratio estimator's (Cochran 1977, eq. 6.13); for equal bottoms it is std / sqrt(n).
    """
    total = fsum(bottoms)
    value = fsum(tops) / total
    n = len(tops)
    if n < 2:
        return Ratio(value, None)
    residual = fsum((top - value * bottom) ** 2 for top, bottom in zip(tops, bottoms, strict=True))
    return Ratio(value, sqrt(n / (n - 1) * residual) / total)
