"""95 % intervals: Wilson's of a share (of fractional counts too, which scipy's is not), Newcombe's of a difference,
Bonett and Price's of a paired one, Fieller's of a share of a gain, Student's of a pooled ratio."""

from collections.abc import Sequence
from math import exp, fsum, hypot, sqrt
from typing import NamedTuple

Z95 = 1.959963984540054
"""Normal quantile of a two-sided 95 % interval."""
NOISE = 1e-9
"""Below this a spread is 0: thirds of a question do not add up exactly."""


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


def clustered_share(shares: Sequence[float]) -> tuple[float, float]:
    """Interval of the mean of questions' shares: Wilson's of as many answers as leave it as uncertain; (0, 1) of one.

    From the spread between questions (Korn and Graubard 1998) and of one more right and one more wrong answer: of 30
    questions that are nearly all solved, the one that is not is often not among them.
    """
    questions = len(shares)
    if questions < 2:
        return 0.0, 1.0
    answers = float(questions)  # equal questions have no spread, which is no certainty: as if each was asked once
    if max(shares) - min(shares) > NOISE:
        more = _answers_worth(shares)
        total = questions + 2 * more
        middle = (fsum(shares) + more) / total
        spread = (_dot(shares, shares) + more) / total - middle**2
        answers *= middle * (1 - middle) / spread * (Z95 / t95(questions)) ** 2
    return wilson(fsum(shares) / questions * answers, answers)


def difference(first: tuple[float, float, float], second: tuple[float, float, float]) -> tuple[float, float]:
    """Interval of the first minus the second, which are independent, from (value, low, high) of each.

    Newcombe 1998, method 10; for other intervals than Wilson's Zou and Donner 2008.
    """
    value, low, high = first
    other, other_low, other_high = second
    middle = value - other
    return middle - hypot(value - low, other_high - other), middle + hypot(high - value, other - other_low)


def paired_difference(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Interval of the second mean minus the first, of answers between 0 and 1 to the same questions.

    Bonett and Price 2012: one question more for either way in which two answers differ.
    """
    more = _answers_worth(first, second)
    total = len(first) + 2 * more
    gain = [y - x for x, y in zip(first, second, strict=True)]
    middle = fsum(gain) / total
    half = Z95 * sqrt(((_dot(gain, gain) + 2 * more) / total - middle**2) / total)
    return max(-1.0, middle - half), min(1.0, middle + half)


def share_of_gain(base: Sequence[float], part: Sequence[float], whole: Sequence[float]) -> tuple[float, float] | None:
    """Interval of (part - base) / (whole - base), means over the same questions; None where the gain may be 0.

    Fieller 1954, with half a question more for each of the six ways in which three answers differ: to any two of them
    that is Bonett and Price's one for either way. The six cancel out in both means and leave the ratio as it is.
    """
    more = _answers_worth(base, part, whole)
    total = len(base) + 3 * more
    kept = [y - x for x, y in zip(base, part, strict=True)]
    gain = [y - x for x, y in zip(base, whole, strict=True)]
    mean_kept, mean_gain = fsum(kept) / total, fsum(gain) / total
    square = Z95**2 / total
    a = mean_gain**2 - square * ((_dot(gain, gain) + 2 * more) / total - mean_gain**2)
    b = mean_gain * mean_kept - square * ((_dot(gain, kept) + more) / total - mean_gain * mean_kept)
    c = mean_kept**2 - square * ((_dot(kept, kept) + 2 * more) / total - mean_kept**2)
    if mean_gain <= 0 or a <= 0:
        return None
    half = sqrt(max(0.0, b**2 - a * c))
    return (b - half) / a, (b + half) / a


def _dot(first: Sequence[float], second: Sequence[float]) -> float:
    return fsum(x * y for x, y in zip(first, second, strict=True))


def _answers_worth(*arms: Sequence[float]) -> float:
    """What one answer weighs in questions: 1 where each was asked once, less where several answers tell more.

    The questions' spread over that of single answers (Korn and Graubard 1998). No spread is no certainty, so 1.
    """
    means = [fsum(arm) / len(arm) for arm in arms]
    spread = fsum(_dot(arm, arm) / len(arm) - mean**2 for arm, mean in zip(arms, means, strict=True))
    return spread / fsum(mean * (1 - mean) for mean in means) if spread > NOISE else 1.0


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


def ratio_interval(found: Ratio, clusters: int) -> tuple[float, float] | tuple[None, None]:
    """Student's interval of the logarithm of a ratio of sums of which none is below 0.

    Few rollouts make most of a KL, and few problems most of a rate: there an interval of the ratio itself is shorter
    still (bench/coverage.py says how often this one holds).
    None for one cluster, and for equal ones, whose lack of spread is no certainty. An error above twice the ratio has
    terms below 0: what rounding leaves of nothing.
    """
    if found.sem is None or not NOISE * found.value < found.sem <= 2 * found.value:
        return None, None
    spread = exp(t95(clusters) * found.sem / found.value)
    return found.value / spread, found.value * spread
