"""From sums per rollout to means with standard errors, and from parts to interactions."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from assets.ablation.catalogue import Part
from assets.ablation.measure import Sums


class Ratio(NamedTuple):
    """A pooled ratio and its standard error over clusters."""

    value: float
    sem: float | None
    """None for fewer than two clusters."""


def ratio(tops: Sequence[float], bottoms: Sequence[float]) -> Ratio:
    """Sum of tops over sum of bottoms, clusters being the entries.

    The error is the linearised ratio estimator's (Cochran 1977, eq. 6.13); for equal bottoms it is std / sqrt(n).
    """
    total = math.fsum(bottoms)
    value = math.fsum(tops) / total
    n = len(tops)
    if n < 2:
        return Ratio(value, None)
    residual = math.fsum((top - value * bottom) ** 2 for top, bottom in zip(tops, bottoms, strict=True))
    return Ratio(value, math.sqrt(n / (n - 1) * residual) / total)


def effect(sums: Sequence[Sums]) -> dict[str, float | int | None]:
    """The pooled columns of one edit, from its sums on each rollout."""
    scored = [s for s in sums if s.num_tokens]
    kl = ratio([s.kl for s in scored], [s.num_tokens for s in scored])
    targets = sum(s.num_targets for s in scored)
    return {
        "kl_mean": kl.value,
        "kl_sem": kl.sem,
        "ce_delta": math.fsum(s.ce_delta for s in scored) / targets if targets else None,
        "n_tokens": sum(s.num_tokens for s in scored),
        "n_rollouts": len(scored),
    }


def interactions(parts: Sequence[Part], kl_mean: Mapping[tuple[str, str], float]) -> list[dict[str, object]]:
    """Every part of several components against the sum over its components, where each of them was ablated alone."""
    rows: list[dict[str, object]] = []
    for part in parts:
        alone = [kl_mean.get(("component", c.id)) for c in part.components]
        if part.kind == "component" or not alone or None in alone:
            continue
        together, apart = kl_mean[part.kind, part.unit], math.fsum(kl for kl in alone if kl is not None)
        rows.append(
            {
                "unit_kind": part.kind,
                "unit": part.unit,
                "kl_mean": together,
                "kl_sum_of_parts": apart,
                "interaction": together - apart,
            }
        )
    return rows
