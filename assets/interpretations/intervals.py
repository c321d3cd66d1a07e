"""The interval of a balanced accuracy, in closed form."""

from math import sqrt

from resources.intervals import wilson


def balanced(hits: float, positives: float, rejections: float, negatives: float) -> tuple[float, float, float]:
    """Balanced accuracy with its 95 % interval, from the Wilson intervals of both rates (Newcombe 1998, method 10)."""
    rates = ((hits, positives), (rejections, negatives))
    shares = [successes / total if total else 0.5 for successes, total in rates]
    bounds = [wilson(successes, total) for successes, total in rates]
    middle = sum(shares) / 2
    down = sqrt(sum((share - low) ** 2 for share, (low, _) in zip(shares, bounds, strict=True))) / 2
    up = sqrt(sum((high - share) ** 2 for share, (_, high) in zip(shares, bounds, strict=True))) / 2
    return middle, max(0.0, middle - down), min(1.0, middle + up)
