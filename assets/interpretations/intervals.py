"""Intervals for proportions and for balanced accuracy, in closed form."""

from math import sqrt

Z = 1.959964
"""Normal quantile of a 95 % interval."""


def wilson(successes: float, total: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion; (0, 1) when nothing was counted."""
    if total <= 0:
        return 0.0, 1.0
    share, square = successes / total, Z * Z
    centre = (share + square / (2 * total)) / (1 + square / total)
    half = Z * sqrt(share * (1 - share) / total + square / (4 * total * total)) / (1 + square / total)
    return max(0.0, centre - half), min(1.0, centre + half)


def balanced(hits: float, positives: float, rejections: float, negatives: float) -> tuple[float, float, float]:
    """Balanced accuracy with its 95 % interval, from the Wilson intervals of both rates (Newcombe 1998, method 10)."""
    rates = ((hits, positives), (rejections, negatives))
    shares = [successes / total if total else 0.5 for successes, total in rates]
    bounds = [wilson(successes, total) for successes, total in rates]
    middle = sum(shares) / 2
    down = sqrt(sum((share - low) ** 2 for share, (low, _) in zip(shares, bounds, strict=True))) / 2
    up = sqrt(sum((high - share) ** 2 for share, (_, high) in zip(shares, bounds, strict=True))) / 2
    return middle, max(0.0, middle - down), min(1.0, middle + up)
