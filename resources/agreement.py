"""How far two raters of the same items agree."""

from collections import Counter
from collections.abc import Sequence


def kappa(pairs: Sequence[tuple[int, int]]) -> float:
    """Cohen's kappa over (first, second) labels; 1.0 when both give one and the same label throughout."""
    total = len(pairs)
    if not total:
        return 0.0
    agreed = sum(a == b for a, b in pairs) / total
    first, second = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    chance = sum(count * second[label] for label, count in first.items()) / total**2
    return 1.0 if chance >= 1 else (agreed - chance) / (1 - chance)
